"""Git repositories as build material: `ADD https://host/repo.git#branch:directory`, and contexts (Docker reference, "Git repositories").

The git program does the work, alone in a directory of its own: none of the user's or the machine's settings, no hooks, no templates, no
prompt; only https, http, git and ssh, so that no `ext::` or `file::`, in an address or a submodule, runs or reads anything; nothing that
could be an option ever stands where git takes one (CVE-2017-1000117 and its kin).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from atoll.errors import InvalidInput, NotFound, NotSupported, Unavailable

TIMEOUT_S = 600.0
PROTOCOLS = ("https", "http", "git", "ssh")
SSH = re.compile(r"[A-Za-z0-9][\w.-]*@[A-Za-z0-9][\w.-]*:(?!//)[\w./~+-]+$", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?$")
REFERENCE = re.compile(r"[A-Za-z0-9_][\w./@+-]*$", re.ASCII)
QUERY_KEYS = {"ref": "ref", "branch": "ref", "tag": "ref", "commit": "ref", "checksum": "checksum", "subdir": "subdir"}
SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.sshCommand": "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes",
    "credential.helper": "",
    "gc.auto": "0",
    "init.defaultBranch": "main",
    "protocol.allow": "never",
    **{f"protocol.{name}.allow": "always" for name in PROTOCOLS},
    "safe.directory": "*",
    "transfer.fsckObjects": "true",
}
KEPT_VARIABLES = (
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "GIT_SSL_CAINFO",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
)


@dataclass(frozen=True, slots=True)
class Address:
    """`ref` is a branch, a tag, a commit, or "" for the remote's own head; `directory` a directory of the repository, "" for all."""

    url: str
    ref: str = ""
    directory: str = ""
    checksum: str = ""


def is_git(word: str) -> bool:
    """Whether a word names a repository: git:// and ssh:// URLs, user@host:path, and http URLs whose path ends with .git."""
    if word.startswith(("git://", "ssh://", "git@")) or SSH.match(word.partition("#")[0]):
        return True
    if not word.startswith(("http://", "https://")):
        return False
    try:
        return urlsplit(word).path.endswith(".git")
    except ValueError:
        return False


def parse(word: str) -> Address:
    """Raises InvalidInput for an address that git could take for something else."""
    url, _, fragment = word.partition("#")
    ref, _, directory = fragment.partition(":")
    given = {"ref": ref, "subdir": directory, "checksum": ""}
    if "://" in url and "?" in url:
        url, _, query = url.partition("?")
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key not in QUERY_KEYS:
                raise InvalidInput(f"invalid git address {word}: unexpected query {key}")
            given[QUERY_KEYS[key]] = value
    if "://" in url:
        parts = urlsplit(url)
        if parts.scheme not in PROTOCOLS or not parts.hostname or parts.hostname.startswith("-") or (parts.username or "").startswith("-"):
            raise InvalidInput(f"invalid git address {word}: only {', '.join(PROTOCOLS)} are fetched")
    elif not SSH.match(url):
        raise InvalidInput(f"invalid git address {word}")
    if given["ref"] and (not REFERENCE.match(given["ref"]) or ".." in given["ref"]):
        raise InvalidInput(f"invalid git reference {given['ref']} in {word}")
    if any(ord(char) < 0x20 for char in word):
        raise InvalidInput("a git address holds a control character")
    return Address(url, given["ref"], given["subdir"].strip("/"), given["checksum"])


async def resolve(address: Address) -> str:
    """The commit an address means now. Raises NotFound, InvalidInput, Unavailable."""
    commit = address.ref if COMMIT.match(address.ref) else await _ask(address)
    if address.checksum and not commit.startswith(address.checksum):
        raise InvalidInput(f"{address.url}: expected checksum {address.checksum} does not match the commit {commit}")
    return commit


async def _ask(address: Address) -> str:
    name = address.ref or "HEAD"
    answer = await _git(None, "ls-remote", "--", address.url, name, f"{name}^{{}}")
    found = {ref: commit for commit, _, ref in (line.partition("\t") for line in answer.splitlines())}
    # A branch before a tag, as the reference builder has it; of a tag what it points at.
    for ref in (name, f"refs/heads/{name}", f"refs/tags/{name}^{{}}", f"refs/tags/{name}"):
        if COMMIT.match(found.get(ref, "")):
            return found[ref]
    raise NotFound(f"{address.url} has no branch or tag {name}")


async def checkout(address: Address, commit: str, directory: Path, *, keep_git: bool = False) -> None:
    """The files of COMMIT, submodules too, into an empty DIRECTORY. Raises Unavailable, NotSupported where git is missing."""
    form = ["--object-format=sha256"] if len(commit) == 64 else []
    await _git(directory, "init", "--quiet", "--template=", *form)
    await _git(directory, "remote", "add", "origin", address.url)
    wanted = [commit] if not address.ref or COMMIT.match(address.ref) else [address.ref]
    try:
        await _git(directory, "fetch", "--quiet", "--depth=1", "--no-tags", "origin", *wanted)
    except Unavailable:
        # Servers of plain files know no depth, and not every server gives out a commit by its name.
        await _git(directory, "fetch", "--quiet", "--tags", "origin", "+refs/heads/*:refs/remotes/origin/*")
    await _git(directory, "checkout", "--quiet", "--force", "--detach", commit, "--")
    if (directory / ".gitmodules").is_file() and not (directory / ".gitmodules").is_symlink():
        await _git(directory, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    if not keep_git:
        await asyncio.to_thread(_forget_git, directory)


def _forget_git(directory: Path) -> None:
    for top, directories, files in os.walk(directory):
        if ".git" in directories:
            shutil.rmtree(os.path.join(top, ".git"))
            directories.remove(".git")
        if ".git" in files:
            os.unlink(os.path.join(top, ".git"))


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    settings: dict[str, str] = {}
    for number, (key, value) in enumerate(SETTINGS.items()):
        settings |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **{name: environ[name] for name in KEPT_VARIABLES if name in environ},
        **settings,
        "GIT_CONFIG_COUNT": str(len(SETTINGS)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
    }


async def _git(directory: Path | None, *arguments: str) -> str:
    """What the program prints. Raises Unavailable with its own words."""
    try:
        process = await asyncio.create_subprocess_exec(
            "git",
            *arguments,
            cwd=directory or "/",
            env=_environment(os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise NotSupported("git repositories need the program git, which is not installed") from None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, errors = await process.communicate()
    except TimeoutError:
        raise Unavailable(f"git {arguments[0]} took more than {TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # its helpers (git-remote-https, ssh) too
            await process.wait()
    if process.returncode:
        words = errors.decode("utf-8", "replace").strip().splitlines()
        raise Unavailable(f"git {arguments[0]} failed: {'; '.join(words[-3:])}")
    return output.decode("utf-8", "replace")
