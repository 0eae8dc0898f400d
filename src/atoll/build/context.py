"""The build context: the client's tar, unpacked where nothing in it can lead out, less what .dockerignore names."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.build.ignore import Ignore
from atoll.build.sources import CONTEXT, Tree
from atoll.errors import InvalidInput, NotFound
from atoll.images.bridge import consume
from atoll.images.compression import decompress
from atoll.images.extract import Policy, extract_tar
from atoll.kernel.openat2 import open_in_root

IGNORE_FILE_MAX = 1 << 20  # bytes


@asynccontextmanager
async def unpacked(chunks: AsyncIterator[bytes], scratch: Path) -> AsyncIterator[Tree]:
    """The context as a tree, while the block runs. Raises InvalidInput naming the entry that may not be."""
    directory = Path(tempfile.mkdtemp(prefix="context-", dir=scratch))
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        await consume(chunks, lambda source: extract_tar(decompress(source), root, Policy()))
        yield Tree(root, CONTEXT)
    finally:
        os.close(root)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def read(tree: Tree, path: str, limit: int) -> bytes:
    """A file of the context, at most LIMIT bytes. Raises NotFound."""
    try:
        fd = open_in_root(tree.root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(f"Cannot locate specified Dockerfile: {path}") from error
    try:
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(limit)
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a directory: name the Dockerfile itself with -f") from error
    finally:
        os.close(fd)


def leave_out_ignored(tree: Tree, dockerfile: str) -> None:
    """Remove what the ignore file names; clients have mostly done so already. Raises InvalidInput for a pattern that cannot be read."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        if tree.exists(name):
            ignore = Ignore.parse(read(tree, name, IGNORE_FILE_MAX).decode("utf-8", "replace"))
            break
    else:
        return
    for path in list(_ignored(tree, ignore, "", frozenset({dockerfile, name}))):
        parent, _, base = path.rpartition("/")
        fd = open_in_root(tree.root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if tree.is_directory(path):
                shutil.rmtree(base, dir_fd=fd)
            else:
                os.unlink(base, dir_fd=fd)
        finally:
            os.close(fd)


def _ignored(tree: Tree, ignore: Ignore, top: str, keep: frozenset[str]) -> Iterator[str]:
    for name in tree.names(top):
        path = f"{top}/{name}".lstrip("/")
        is_directory = tree.is_directory(path)
        holds_kept = any(kept.startswith(f"{path}/") for kept in keep)
        if path not in keep and ignore.excludes(path) and not (is_directory and (ignore.has_exceptions or holds_kept)):
            yield path
        elif is_directory:
            yield from _ignored(tree, ignore, path, keep)
