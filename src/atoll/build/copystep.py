"""COPY and ADD as steps: what their words name becomes material with a digest, and the material, where the cache has none of it, a layer.

Material may be files of the context, a stage or an image, a here-document, or (ADD) a URL or a git repository. Its digest is known before
it is fetched wherever that can be: a URL with a checksum and a git commit need no network when the step is cached.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.build import git
from atoll.build.checks import ignored_source
from atoll.build.config import Config
from atoll.build.copying import PARENT_MODE, Copy, Piece, copy
from atoll.build.ignore import Ignore, Pattern
from atoll.build.modes import octal_mode, read_mode
from atoll.build.remote import Checksum, download
from atoll.build.sources import LeaveOut, Source, directory_tree, merged_tree
from atoll.build.state import State
from atoll.build.syntax import Heredoc, Instruction
from atoll.build.words import Expander
from atoll.build.work import Site
from atoll.errors import InvalidInput
from atoll.images import Layer
from atoll.images.threads import in_thread

BLANK = re.compile(r"[ \t\v\f\r]+")
DOCUMENT_MODE = 0o644
URL_MODE = 0o600  # the reference builder's for what ADD fetches


@dataclass(frozen=True, slots=True)
class Material:
    """`digest` is what the cache's key has of it, `pieces` brings it here."""

    kind: str
    digest: Any
    pieces: Callable[[], Awaitable[Sequence[Piece]]]


@dataclass(frozen=True, slots=True)
class _Words:
    """An instruction's words after expansion."""

    sources: tuple[str, ...]
    documents: tuple[Heredoc, ...]
    target: str


async def copy_files(site: Site, state: State, instruction: Instruction) -> State:
    """STATE after a COPY or ADD. Raises InvalidInput, and what fetching raises."""
    build = site.build
    expander = build.expander(state)
    words = _read(instruction, expander)
    wanted = _copy(instruction, expander, words, state.config)
    async with AsyncExitStack() as stack:
        materials = await _materials(site, stack, instruction, words, expander, wanted)
        mode = expander.word(instruction.flag("chmod") or "")
        flags = [wanted.owner, mode, wanted.parents, *instruction.every_flag("exclude")]
        what = [instruction.name, [[one.kind, one.digest] for one in materials], wanted.target, flags, instruction.flag("unpack")]

        async def make() -> Layer:
            pieces = [piece for material in materials for piece in await material.pieces()]
            return await _write(site, state, wanted, pieces)

        entry, layer = await build.entry(state, what, instruction, site.voice, make)
    kind = materials[0].kind if len(materials) == 1 else "multi"
    told = build.history.files(instruction, state.config, f"{kind}:{entry.key}", _shown(wanted, mode, words))
    return state.after(entry.key, entry.created, told, layer)


def _shown(wanted: Copy, mode: str, words: _Words) -> list[str]:
    flags = [f"--{name}={value}" for name, value in (("chown", wanted.owner), ("chmod", mode)) if value]
    return [*(["--parents"] if wanted.parents else ()), *flags, *words.sources, *(f"<<{one.name}" for one in words.documents), words.target]


def _read(instruction: Instruction, expander: Expander) -> _Words:
    words = [_expanded(word, expander) for word in (BLANK.split(instruction.text) if instruction.words is None else instruction.words)]
    if len(words) < 2:
        raise InvalidInput(
            f"{instruction.name} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    *sources, target = words
    # The openings of here-documents stand among the sources; quotes are gone from the words, so they are told by what they begin with.
    plain = [word for word in sources if not (instruction.heredocs and word.lstrip("0123456789").startswith("<<"))]
    documents = [
        Heredoc(one.name, expander.heredoc(one.content) if one.expand else one.content, one.expand, one.opening)
        for one in instruction.heredocs
    ]
    return _Words(tuple(plain), tuple(documents), target)


def _expanded(word: str, expander: Expander) -> str:
    """White space divides the words of the shell form even between quotes, so that these may be without their end."""
    try:
        return expander.word(word)
    except InvalidInput as error:
        raise InvalidInput(f'failed to process "{_escaped(word)}": {error}: a path with a space in it needs the JSON form') from error


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


def _copy(instruction: Instruction, expander: Expander, words: _Words, config: Config) -> Copy:
    mode = expander.word(instruction.flag("chmod") or "")
    patterns = [expander.word(word) for word in instruction.every_flag("exclude")]
    target = absolute(words.target, config)
    _check_target(instruction, target, len(words.sources) + len(words.documents))
    return Copy(
        target,
        owner=expander.word(instruction.flag("chown") or ""),
        ways_mode=PARENT_MODE if (octal := octal_mode(mode)) is None else octal,
        change_mode=read_mode(mode) if mode else None,
        keep_owner=instruction.flag("from") is not None,
        parents=instruction.switch("parents"),
        leave_out=_leave_out(patterns) if patterns else None,
    )


def _check_target(instruction: Instruction, target: str, count: int) -> None:
    if count > 1 and not target.endswith("/"):
        raise InvalidInput(
            f"When using {instruction.name} with more than one source file, the destination must be a directory and end with a /"
        )


def _leave_out(patterns: Sequence[str]) -> LeaveOut:
    return Ignore(
        Pattern(posixpath.normpath(text.removeprefix("!")).lstrip("/"), negated=text.startswith("!")) for text in patterns
    ).excludes


async def _materials(
    site: Site, stack: AsyncExitStack, instruction: Instruction, words: _Words, expander: Expander, wanted: Copy
) -> list[Material]:
    found: list[Material] = []
    local: list[str] = []
    for word in words.sources:
        if instruction.name == "ADD" and git.is_git(word):
            found.append(await _repository(site, stack, instruction, word))
        elif instruction.name == "ADD" and word.startswith(("http://", "https://")):
            found.append(await _from_url(site, stack, instruction, word, expander))
        else:
            local.append(word)
    if instruction.flag("checksum") and (local or words.documents):
        raise InvalidInput("checksum can't be specified for local sources")
    if local:
        found += await _from_tree(site, stack, instruction, local, wanted)
    return [*found, *(_document(site, stack, one) for one in words.documents)]


async def _from_tree(site: Site, stack: AsyncExitStack, instruction: Instruction, words: Sequence[str], wanted: Copy) -> list[Material]:
    build, name = site.build, instruction.flag("from")
    tree, layers, _ = await site.tree_of(stack, name)
    for word in words if not name else ():
        if build.ignore.excludes(posixpath.normpath(word).lstrip("/")):
            site.warn(ignored_source(instruction, word))
    unpack = instruction.name == "ADD" and instruction.switch("unpack", default=True)
    sources = await in_thread(lambda: [source for word in words for source in tree.find(word, parents=wanted.parents)])
    _check_target(instruction, wanted.target, len(sources))
    found = []
    for source in sources:
        digest = [source.kept or (source.path and source.name), await build.digest(tree, source, layers, wanted.leave_out)]
        found.append(Material("dir" if source.is_directory else "file", digest, _here(Piece(tree, source, unpack))))
    return found


def _here(*pieces: Piece) -> Callable[[], Awaitable[Sequence[Piece]]]:
    async def get() -> Sequence[Piece]:
        return pieces

    return get


def _document(site: Site, stack: AsyncExitStack, document: Heredoc) -> Material:
    async def get() -> Sequence[Piece]:
        place = _place(site, stack)
        name = posixpath.basename(document.name)
        (place / name).write_text(document.content, "utf-8", "surrogateescape", newline="")
        tree = stack.enter_context(directory_tree(place, "a here-document"))
        return [Piece(tree, Source(name, name, is_directory=False), mode=DOCUMENT_MODE, mtime_ns=site.build.begun_ns)]

    return Material("file", [document.name, document.content], get)


async def _from_url(site: Site, stack: AsyncExitStack, instruction: Instruction, url: str, expander: Expander) -> Material:
    text = expander.word(instruction.flag("checksum") or "")
    checksum = Checksum.parse(text) if text else None
    place = _place(site, stack)
    unpack = instruction.switch("unpack")

    async def fetch() -> Sequence[Piece]:
        fetched = await download(url, place, checksum)
        tree = stack.enter_context(directory_tree(place, url))
        return [Piece(tree, Source(fetched.name, fetched.name, is_directory=False), unpack, URL_MODE, fetched.modified_ns)]

    if checksum is not None:
        return Material("file", [url, str(checksum)], fetch)
    pieces = await fetch()
    site.voice.say(f"Downloaded {url}\n")
    return Material("file", [pieces[0].source.name, await site.build.digest(pieces[0].tree, pieces[0].source)], _here(*pieces))


async def _repository(site: Site, stack: AsyncExitStack, instruction: Instruction, word: str) -> Material:
    address = git.parse(word)
    commit = await git.resolve(address)
    wanted = instruction.flag("checksum")
    if wanted and not commit.startswith(wanted):
        raise InvalidInput(f"ADD {word}: expected checksum {wanted} does not match the commit {commit}")
    keep = instruction.switch("keep-git-dir")
    place = _place(site, stack)

    async def fetch() -> Sequence[Piece]:
        await git.checkout(address, commit, place, keep_git=keep)
        tree = stack.enter_context(directory_tree(place, word))
        path = tree.follow(address.directory)
        if not tree.exists(path) or not tree.is_directory(path):
            raise InvalidInput(f"ADD {word}: the repository has no directory {address.directory}")
        return [Piece(tree, Source(path, "", is_directory=True))]

    return Material("dir", [commit, address.directory, keep], fetch)


def _place(site: Site, stack: AsyncExitStack) -> Path:
    """An empty directory, until the step is over."""
    place = Path(tempfile.mkdtemp(prefix="fetched-", dir=site.build.shop.scratch))
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    place.chmod(0o755)
    return place


async def _write(site: Site, state: State, wanted: Copy, pieces: Sequence[Piece]) -> Layer:
    build = site.build
    lowers = build.lowers(state.layers)

    def work() -> Path:
        if not lowers:
            return copy(wanted, pieces, None, (), build.shop.scratch)
        with merged_tree(lowers, "the stage") as below:
            return copy(wanted, pieces, below, lowers, build.shop.scratch)

    return await build.commit(await in_thread(work), state)


def absolute(path: str, config: Config) -> str:
    """PATH from the working directory on; a slash at its end stays."""
    full = path if path.startswith("/") else os.path.join(config.get("WorkingDir") or "/", path)
    clean = "/" + posixpath.normpath(full).lstrip("/")
    return clean + "/" if path.endswith(("/", "/.")) or path == "." else clean
