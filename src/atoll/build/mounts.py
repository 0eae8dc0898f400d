"""What RUN --mount asks for: the words of the flag to values (Docker reference, "RUN --mount").

A flag is one line of comma-separated `key=value` words, as in CSV: a word with a comma in it stands in double quotes. Reading is pure;
what a mount needs to be there (directories, merged layers) is made in running.py.
"""

from __future__ import annotations

import csv
import posixpath
import re
from dataclasses import dataclass, field

from atoll.build.syntax import Instruction
from atoll.build.words import Expander
from atoll.errors import InvalidInput
from atoll.units import parse_bytes

KINDS = frozenset({"bind", "cache", "tmpfs", "secret", "ssh"})
SHARINGS = frozenset({"shared", "private", "locked"})
KEYS = {"target": "target", "dst": "target", "destination": "target", "source": "source", "src": "source"}
ALLOWED = {
    "bind": frozenset({"target", "source", "from", "rw"}),
    "cache": frozenset({"target", "source", "from", "rw", "id", "sharing", "mode", "uid", "gid"}),
    "tmpfs": frozenset({"target", "size"}),
    "secret": frozenset({"target", "id", "env", "required", "mode", "uid", "gid"}),
    "ssh": frozenset({"target", "id", "required", "mode", "uid", "gid"}),
}
CLIENTS = frozenset({"secret", "ssh"})
SECRETS = "/run/secrets"
AGENT = "/run/buildkit/ssh_agent"
DEFAULT_AGENT = "default"
SWITCHES = {"ro": False, "readonly": False, "rw": True, "readwrite": True}
CACHE_MODE = 0o755
MODES = {"secret": 0o400, "ssh": 0o600}
ID_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount. `source` is a path in the stage, image or context `origin` ("" is the context, or for a cache nothing at all).

    A secret may be a variable `env` too, or alone, its `target` then "". What is `required` must be there.
    """

    kind: str
    target: str
    source: str = ""
    origin: str = ""
    writable: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: int = CACHE_MODE
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    required: bool = False


@dataclass(slots=True)
class _Words:
    kind: str = "bind"
    values: dict[str, str] = field(default_factory=dict)
    writable: bool | None = None


def read_mounts(instruction: Instruction, expander: Expander, workdir: str, namespace: str = "") -> list[Mount]:
    """The mounts of a RUN in order. A relative target lies in WORKDIR; caches of one NAMESPACE are not those of another.

    Raises InvalidInput.
    """
    texts = instruction.every_flag("mount")
    found = [_mount(_split(text, expander), text, workdir, namespace, number) for number, text in enumerate(texts)]
    targets = [mount.target for mount in found if mount.target]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidInput(f"duplicate mount target: {target}")
    return found


def origins(instruction: Instruction) -> list[str]:
    """The `from=` of each mount, for the graph of stages: the one key whose value no variable may stand in."""
    words = [_split(text, None).values.get("from", "") for text in instruction.every_flag("mount")]
    for word in words:
        if "$" in word:
            raise InvalidInput(f"'{word}' from doesn't support variable expansion: define an alias stage instead")
    return [word for word in words if word]


def context_sources(instruction: Instruction) -> list[str]:
    """What the mounts of a RUN take from the context, "" for all of it."""
    words = [_split(text, None) for text in instruction.every_flag("mount")]
    return [one.values.get("source", "") for one in words if one.kind == "bind" and not one.values.get("from")]


def _split(text: str, expander: Expander | None) -> _Words:
    """EXPANDER None leaves variables as they stand."""
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidInput(f"failed to parse csv mounts: {text}") from error
    found = _Words()
    for word in fields:
        key, equals, value = word.partition("=")
        key = key.strip().lower()
        if key in SWITCHES:
            if value not in ("", "true", "false"):
                raise InvalidInput(f"invalid value for {key}: {value}")
            found.writable = SWITCHES[key] != (value == "false")
            continue
        if key == "required" and not equals:
            value = "true"
        elif not equals:
            raise InvalidInput(f"invalid field '{word}' must be a key=value pair")
        if expander is not None and key not in ("type", "from"):
            value = expander.word(value)
        if key == "type":
            found.kind = value.lower()
        else:
            found.values[KEYS.get(key, key)] = value
    return found


def _mount(words: _Words, text: str, workdir: str, namespace: str, number: int) -> Mount:
    kind, values = words.kind, words.values
    if kind not in KINDS:
        raise InvalidInput(f"unsupported mount type '{kind}'")
    if kind == "secret" and "source" in values:
        values.setdefault("id", values.pop("source"))
    for key in values:
        if key not in ALLOWED[kind]:
            raise InvalidInput(f"unexpected key '{key}' in '{text}' for a mount of type {kind}")
    if words.writable is not None and kind in ("tmpfs", *CLIENTS):
        raise InvalidInput(f"a mount of type {kind} is {'always' if kind == 'tmpfs' else 'never'} writable: {text}")
    if kind in CLIENTS:
        return _clients(kind, values, text, workdir, number)
    if not values.get("target"):
        raise InvalidInput(f"target is required: {text}")
    target = _target(values["target"], workdir)
    sharing = values.get("sharing", "shared").lower()
    if sharing not in SHARINGS:
        raise InvalidInput(f"unsupported sharing value '{sharing}'")
    return Mount(
        kind,
        target,
        values.get("source", ""),
        values.get("from", ""),
        words.writable if words.writable is not None else kind == "cache",
        "/".join(filter(None, (namespace, values.get("id") or target))),
        sharing,
        _mode(values["mode"]) if "mode" in values else CACHE_MODE,
        _identity(values, "uid"),
        _identity(values, "gid"),
        parse_bytes(values["size"]) if "size" in values else 0,
    )


def _clients(kind: str, values: dict[str, str], text: str, workdir: str, number: int) -> Mount:
    """What the client gives, at the place the reference builder has for it."""
    name, target, env = values.get("id", ""), values.get("target", ""), values.get("env", "")
    if kind == "secret":
        name = name or posixpath.basename(target) or env
        if not name:
            raise InvalidInput(f"a secret needs an id or a target: {text}")
        target = target or ("" if env else f"{SECRETS}/{name}")
    else:
        name, target = name or DEFAULT_AGENT, target or f"{AGENT}.{number}"
    required = values.get("required", "false").lower()
    if required not in ("true", "false", "1", "0"):
        raise InvalidInput(f"invalid value for required: {required}")
    return Mount(
        kind,
        _target(target, workdir) if target else "",
        id=name,
        mode=_mode(values["mode"]) if "mode" in values else MODES[kind],
        uid=_identity(values, "uid"),
        gid=_identity(values, "gid"),
        env=env,
        required=required in ("true", "1"),
    )


def _target(text: str, workdir: str) -> str:
    target = posixpath.normpath("/" + posixpath.join(workdir or "/", text).lstrip("/"))
    if target == "/":
        raise InvalidInput(f"invalid mount target '{text}': it is the root")
    return target


def _mode(text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise InvalidInput(f"invalid value {text} for mode: it must be an octal number up to 7777")
    return int(text, 8)


def _identity(values: dict[str, str], key: str) -> int:
    text = values.get(key, "0")
    if not (text.isascii() and text.isdigit() and int(text[:12]) <= ID_MAX):
        raise InvalidInput(f"invalid value {text} for {key}: it must be a number up to {ID_MAX}")
    return int(text)
