"""The build context: the client's tar, or what a URL leads to, where nothing in it can lead out, less what .dockerignore names.

A URL is a git repository, a tar (plain or compressed), or a Dockerfile alone, which then has no files beside it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.build import git
from atoll.build.copying import is_archive
from atoll.build.ignore import Ignore
from atoll.build.lexer import SIZE_MAX
from atoll.build.newlayer import DIRECTORY_MODE
from atoll.build.remote import download
from atoll.build.sources import CONTEXT, Source, Tree, directory_tree
from atoll.errors import InvalidInput, NotFound
from atoll.images.bridge import consume
from atoll.images.compression import decompress
from atoll.images.extract import Policy, extract_tar
from atoll.images.threads import in_thread
from atoll.kernel.openat2 import open_in_root

IGNORE_FILE_MAX = 1 << 20  # bytes
# Whose the files are on the client's machine is no affair of the image's: COPY gives all to root.
POLICY = Policy(owner=(0, 0))


@asynccontextmanager
async def unpacked(chunks: AsyncIterator[bytes], scratch: Path) -> AsyncIterator[Tree]:
    """The context as a tree, while the block runs. Raises InvalidInput naming the entry that may not be."""
    async with _directory(scratch) as place:
        await unpack_into(place, chunks)
        with directory_tree(place, CONTEXT) as tree:
            yield tree


async def unpack_into(place: Path, chunks: AsyncIterator[bytes]) -> None:
    """The same over what is in PLACE: an entry takes the place of one of its name."""
    with directory_tree(place, CONTEXT) as tree:
        await consume(chunks, lambda source: extract_tar(decompress(source), tree.root, POLICY))


@asynccontextmanager
async def fetched(remote: str, dockerfile: str, scratch: Path, *, keep_git: bool = False) -> AsyncIterator[Tree]:
    """What REMOTE leads to; a Dockerfile alone lies at DOCKERFILE. Raises InvalidInput, NotFound, Unavailable."""
    async with _directory(scratch) as outer:
        if git.is_git(remote):
            place = await _checked_out(remote, outer, keep_git=keep_git)
        elif remote.startswith(("http://", "https://")):
            place = await _downloaded(remote, dockerfile, outer)
        else:
            raise InvalidInput(f"remote context {remote} is neither an http URL nor a git repository")
        with directory_tree(place, CONTEXT) as tree:
            yield tree


async def _checked_out(remote: str, place: Path, *, keep_git: bool) -> Path:
    address = git.parse(remote)
    await git.checkout(address, await git.resolve(address), place, keep_git=keep_git)
    with directory_tree(place, CONTEXT) as whole:
        path = whole.follow(address.directory)
        if not whole.exists(path) or not whole.is_directory(path):
            raise InvalidInput(f"{remote}: the repository has no directory {address.directory}")
    return place / path


async def _downloaded(remote: str, dockerfile: str, place: Path) -> Path:
    file = await download(remote, place)

    def work() -> Path:
        inner = Path(tempfile.mkdtemp(dir=place))
        inner.chmod(0o755)
        with directory_tree(place, remote) as outer, directory_tree(inner, CONTEXT) as tree:
            if is_archive(outer, Source(file.name, file.name, is_directory=False)):
                with (place / file.name).open("rb") as archive:
                    extract_tar(decompress(iter(lambda: archive.read(1 << 20), b"")), tree.root, POLICY)
            elif (place / file.name).stat().st_size <= SIZE_MAX:
                target = inner / tree.follow(dockerfile)
                target.parent.mkdir(parents=True, exist_ok=True)
                (place / file.name).rename(target)
            else:
                raise InvalidInput(f"{remote} is neither a tar nor a Dockerfile")
        return inner

    return await in_thread(work)


@asynccontextmanager
async def _directory(scratch: Path) -> AsyncIterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="context-", dir=scratch))
    os.chmod(place, DIRECTORY_MODE)  # COPY of all of it gives its mode to the directory it makes
    try:
        yield place
    finally:
        await in_thread(lambda: shutil.rmtree(place, ignore_errors=True))


def read_dockerfile(tree: Tree, path: str) -> bytes:
    """At most one byte more than a Dockerfile may have. Raises NotFound, InvalidInput for a directory."""
    try:
        return tree.read(path, SIZE_MAX + 1)
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a directory: name the Dockerfile itself with -f") from error
    except OSError as error:
        raise NotFound(f"Cannot locate specified Dockerfile: {path}") from error


async def leave_out_ignored(tree: Tree, dockerfile: str) -> Ignore:
    """Remove what the ignore file names, which may be the Dockerfile, now that it is read, and itself.

    Clients have mostly done so already, but for these two. Raises InvalidInput for a pattern that cannot be read.
    """
    return await asyncio.to_thread(_leave_out_ignored, tree, dockerfile)


def _leave_out_ignored(tree: Tree, dockerfile: str) -> Ignore:
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        if tree.exists(name):
            ignore = Ignore.parse(tree.read(name, IGNORE_FILE_MAX).decode("utf-8", "replace"))
            break
    else:
        return Ignore()
    for path in list(_ignored(tree, ignore, "")):
        parent, _, base = path.rpartition("/")
        fd = open_in_root(tree.root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if tree.is_directory(path):
                shutil.rmtree(base, dir_fd=fd)
            else:
                os.unlink(base, dir_fd=fd)
        finally:
            os.close(fd)
    return ignore


def _ignored(tree: Tree, ignore: Ignore, top: str) -> Iterator[str]:
    for name in tree.names(top):
        path = f"{top}/{name}".lstrip("/")
        is_directory = tree.is_directory(path)
        if ignore.excludes(path) and not (is_directory and ignore.has_exceptions):
            yield path
        elif is_directory:
            yield from _ignored(tree, ignore, path)
