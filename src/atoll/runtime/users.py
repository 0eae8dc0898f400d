"""Docker's "user[:group]" against the image's own /etc/passwd and /etc/group, read inside the root.

Not through the host's C library: its name service would load whatever libraries it finds (CVE-2019-14271).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from atoll.errors import InvalidInput
from atoll.kernel import inroot

_FILE_MAX = 1024 * 1024  # bytes; a larger passwd is no passwd
_ID_MAX = 2**31 - 1


class User(NamedTuple):
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(root: int, name: str, groups: Iterable[str] = ()) -> User:
    """`name` is "", "user", "user:group", with names or numbers. Raises InvalidInput in Docker's words.

    Without a group the user's own counts, and the groups the user is a member of are added; `groups` always are (`--group-add`). The
    primary group is among the supplementary ones, so that a set-group-id program cannot lose it (CVE-2022-36109).
    """
    wanted, colon, wanted_group = name.partition(":")
    row = _find(_rows(root, "/etc/passwd", 6, (wanted or "0",)), wanted or "0")
    named = (*([wanted_group] if wanted_group else ()), *groups)
    group = _rows(root, "/etc/group", 3, (*named, *([row[0]] if row else ())))
    number = _number(wanted or "0")
    if row is None and number is None:
        raise InvalidInput(f"unable to find user {wanted}: no matching entries in passwd file")
    uid = int(row[2]) if row else number or 0
    gid = int(row[3]) if row else 0
    extra: list[int] = []
    if colon and wanted_group:
        gid = _group(group, wanted_group)
    elif row:
        extra = [int(entry[2]) for entry in group if row[0] in entry[3].split(",")]
    extra += [_group(group, name) for name in groups]
    members = tuple(dict.fromkeys((gid, *extra)))
    for value in (uid, *members):
        if not 0 <= value <= _ID_MAX:
            raise InvalidInput(f"uids and gids must be in range 0-{_ID_MAX}")
    return User(uid, gid, members, (row[5] if row else "") or "/")


def of(root: int, fields: Mapping[str, Any]) -> User:
    """An OCI `process.user`, which of our own making holds Docker's "user[:group]" as `username`. Raises InvalidInput."""
    named = fields.get("username")
    if named is not None:
        return resolve(root, named, fields.get("additionalGroups") or ())
    uid = int(fields.get("uid", 0))
    home = resolve(root, str(uid)).home
    return User(uid, int(fields.get("gid", 0)), tuple(fields.get("additionalGids") or ()), home)


def _group(rows: list[list[str]], wanted: str) -> int:
    row, number = _find(rows, wanted), _number(wanted)
    if row is None and number is None:
        raise InvalidInput(f"unable to find group {wanted}: no matching entries in group file")
    return int(row[2]) if row else number or 0


def _find(rows: list[list[str]], wanted: str) -> list[str] | None:
    """By name first, as Docker does; then by number."""
    return next((row for row in rows if row[0] == wanted), None) or next((row for row in rows if row[2] == wanted), None)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _rows(root: int, path: str, fields: int, words: tuple[str, ...]) -> list[list[str]]:
    """The rows that hold one of `words` somewhere."""
    if not words:
        return []
    try:
        text = inroot.read(root, path, _FILE_MAX).decode("utf-8", "surrogateescape")
    except OSError:
        return []
    rows = []
    for line in text.splitlines():
        if not any(word in line for word in words):
            continue
        row = [*line.strip().split(":"), *[""] * fields]
        if row[0] and not row[0].startswith("#") and row[2].isdigit() and (fields == 3 or row[3].isdigit()):
            rows.append(row)
    return rows
