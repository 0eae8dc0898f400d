"""`cp`: files between a container and the host, by the rules of `cp -a` (Docker reference, "docker container cp").

The host's side is read and written here; the container's side crosses the wire as a tar. What arrives is unpacked by the engine's own
extractor, which cannot be led out of the destination.
"""

from __future__ import annotations

import base64
import json
import os
import sys

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import CommandFailed, engine
from atoll.cli.wire import Engine, EngineError, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

GO_MODE_DIR = 1 << 31  # os.ModeDir of Go, in the engine's path statistics
GO_MODE_SYMLINK = 1 << 27


def copy() -> Command:
    flags = (
        Flag("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", "bool", "Suppress progress output during copy"),
    )
    usage = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH"
    return Command(_copy, usage, "Copy files/folders between a container and the local filesystem", flags, minimum=2, maximum=2)


def split(word: str) -> tuple[str, str]:
    """`container:path`; a colon after a slash or a leading dot belongs to a local path."""
    name, colon, path = word.partition(":")
    if not colon or "/" in name or word.startswith("."):
        return "", word
    return name, path


def _copy(options: Options, words: list[str]) -> int:
    (source_name, source), (target_name, target) = split(words[0]), split(words[1])
    if source_name and target_name:
        raise CommandFailed("copying between containers is not supported")
    if not source_name and not target_name:
        raise CommandFailed("must specify at least one container source")
    client = engine()
    if source_name:
        return _from_container(client, source_name, source, target, options)
    return _to_container(client, source, target_name, target, options)


def _said(options: Options, text: str) -> None:
    if not options["quiet"] and sys.stderr.isatty():
        print(text, file=sys.stderr)


def _stat(reply: Reply) -> dict[str, Any]:
    found = json.loads(base64.b64decode(reply.headers["x-docker-container-path-stat"]))
    assert isinstance(found, dict)
    return found


def _from_container(client: Engine, name: str, source: str, target: str, options: Options) -> int:
    if options["follow-link"]:
        source = _followed(client, name, source)
    reply = client.request("GET", f"/containers/{name}/archive", {"path": source})
    try:
        if target == "-":
            from atoll.cli.terminal import write_all

            for chunk in reply.chunks():
                write_all(1, chunk)
            return 0
        found = _stat(reply)
        directory = bool(found["mode"] & GO_MODE_DIR)
        parent, rename = _destination(target, os.path.basename(source.rstrip("/")) or found["name"], source, is_directory=directory)
        _unpack(reply.chunks(), parent, found["name"], rename, archive=options["archive"])
    finally:
        reply.close()
    _said(options, f"Successfully copied to {target}")
    return 0


def _followed(client: Engine, name: str, source: str) -> str:
    reply = client.request("HEAD", f"/containers/{name}/archive", {"path": source})
    try:
        found = _stat(reply)
    finally:
        reply.close()
    if not found["mode"] & GO_MODE_SYMLINK or not found.get("linkTarget"):
        return source
    return os.path.normpath(os.path.join(os.path.dirname(source), found["linkTarget"]))


def _destination(target: str, base: str, source: str, *, is_directory: bool) -> tuple[str, str]:
    """The existing directory to unpack in, and the name the first component of each entry becomes ("" keeps the content's own)."""
    contents = source.endswith("/.") or source == "."
    if os.path.isdir(target):
        return (target, "") if contents else (target, base)
    if os.path.exists(target) and is_directory:
        raise CommandFailed(f"cannot copy directory to a file: {target}")
    if target.endswith("/") and not is_directory:
        raise CommandFailed(f"the destination directory must exist: {target}")
    parent, name = os.path.split(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise CommandFailed(f'invalid output path: directory "{parent}" does not exist')
    return parent, name


def _unpack(chunks: Iterator[bytes], parent: str, first: str, rename: str, *, archive: bool) -> None:
    """The archive's entries all lie below FIRST; they land below PARENT/RENAME, or, when RENAME is empty, in PARENT itself."""
    from atoll.images.extract import Policy, extract_tar

    old, new = os.fsencode(first), os.fsencode(rename)

    def renamed(path: bytes) -> bytes:
        if path == old:
            return new
        inner = path.removeprefix(old + b"/")
        return b"/".join(part for part in (new, inner) if part)

    owner = None if archive else (os.geteuid(), os.getegid())
    root = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        extract_tar(chunks, root, Policy(owner=owner, keep_directories=True, rename=renamed))
    finally:
        os.close(root)


def _to_container(client: Engine, source: str, name: str, target: str, options: Options) -> int:
    if source == "-":
        from atoll.cli.verbs.images import blocks

        data: Iterator[bytes] = blocks("-")
        _put(client, name, target, data, options)
        return 0
    if not os.path.lexists(source):
        raise CommandFailed(f"lstat {os.path.abspath(source)}: no such file or directory")
    contents = source.endswith("/.") or source == "."
    path = os.path.realpath(source) if options["follow-link"] or contents or source.endswith("/") else os.path.abspath(source)
    if source.endswith("/") and not os.path.isdir(path):
        raise CommandFailed(f"{source}: not a directory")
    is_directory = os.path.isdir(path) and not os.path.islink(path)
    base = os.path.basename(path)
    found = _target_stat(client, name, target)
    if found is not None and found["mode"] & GO_MODE_DIR:
        parent, rename = target, "" if contents else base
    elif found is not None:
        if is_directory:
            raise CommandFailed(f"cannot copy directory to a file: {target}")
        parent, rename = os.path.dirname(target.rstrip("/")) or "/", os.path.basename(target.rstrip("/"))
    else:
        if target.endswith("/") and not is_directory:
            raise CommandFailed(f"no such directory: {target}")
        parent, rename = os.path.dirname(target.rstrip("/")) or "/", os.path.basename(target.rstrip("/"))
    _put(client, name, parent, _archive(path, rename, archive=options["archive"]), options)
    _said(options, f"Successfully copied to {name}:{target}")
    return 0


def _target_stat(client: Engine, name: str, path: str) -> dict[str, Any] | None:
    """Statistics of the destination, a final symbolic link followed; None where there is nothing yet."""
    for _ in range(8):  # links that lead to links; more is a loop
        try:
            reply = client.request("HEAD", f"/containers/{name}/archive", {"path": path})
        except EngineError as error:
            if error.status == 404 and "No such container" not in error.message:
                return None
            # A HEAD carries no message: ask for the container itself to tell which of the two is missing.
            client.get(f"/containers/{name}/json")
            return None
        try:
            found = _stat(reply)
        finally:
            reply.close()
        if not found["mode"] & GO_MODE_SYMLINK or not found.get("linkTarget"):
            return found
        path = os.path.join(os.path.dirname(path.rstrip("/")), found["linkTarget"])
    raise CommandFailed(f"too many symbolic links at {path}")


def _put(client: Engine, name: str, path: str, data: Iterator[bytes], options: Options) -> None:
    query = {"path": path, "noOverwriteDirNonDir": True, "copyUIDGID": options["archive"]}
    client.request("PUT", f"/containers/{name}/archive", query, data=data, headers={"Content-Type": "application/x-tar"}).close()


def _archive(path: str, rename: str, *, archive: bool) -> Iterator[bytes]:
    """PATH as a tar whose entries begin with RENAME; ownership is root's unless --archive asks for the host's."""
    import tarfile

    from atoll.cli.context import file_blocks

    paths = [path]
    if os.path.isdir(path) and not os.path.islink(path):
        paths += [os.path.join(top, name) for top, directories, files in os.walk(path) for name in (*directories, *files)]
    for one in paths:
        inner = os.path.relpath(one, path)
        name = rename if inner == "." else f"{rename}/{inner}" if rename else inner
        if not name:
            continue
        with tarfile.open(fileobj=open(os.devnull, "wb"), mode="w") as scratch:
            info = scratch.gettarinfo(one, name)
        if info is None:
            continue  # a socket
        if not archive:
            info.uid = info.gid = 0
            info.uname = info.gname = ""
        if info.isreg():
            yield from file_blocks(one, info)
        else:
            yield info.tobuf(tarfile.PAX_FORMAT)
    yield bytes(2 * tarfile.BLOCKSIZE)
