"""`build` and `builder prune`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext

from atoll.cli import context, human
from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.progress import follow
from atoll.cli.session import CommandFailed, confirmed, engine, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import Any

FLAGS = (
    Flag("add-host", "", "list", 'Add a custom host-to-IP mapping ("host:ip")'),
    Flag("base", "", "string", "With --python: the base image (default: the official image of the project's Python)", "image"),
    Flag("build-arg", "", "list", "Set build-time variables"),
    Flag("cache-from", "", "list", "Images to consider as cache sources"),
    Flag("cmd", "", "string", "With --python: what the image runs (default: what [project.scripts] names)", "command"),
    Flag("extra", "", "list", "With --python: an extra of the project to install"),
    Flag("file", "f", "string", 'Name of the Dockerfile (default: "PATH/Dockerfile")'),
    Flag("force-rm", "", "bool", "Always remove intermediate containers"),
    Flag("iidfile", "", "string", "Write the image ID to a file"),
    Flag("index-url", "", "list", "With --python: the package index of a requirements.txt", "url"),
    Flag("label", "", "list", "Set metadata for an image"),
    Flag("memory", "m", "string", "Memory limit", "bytes"),
    Flag("network", "", "string", 'Set the networking mode for the "RUN" instructions during build'),
    Flag("no-cache", "", "bool", "Do not use cache when building the image"),
    Flag("platform", "", "string", "Set target platform for build"),
    Flag("progress", "", "string", "Set type of progress output (auto, plain)"),
    Flag("pull", "", "bool", "Always attempt to pull all referenced images"),
    Flag("python", "", "bool", "Make an image of a Python project: a layer for each locked wheel, the code last; no Dockerfile"),
    Flag("quiet", "q", "bool", "Suppress the build output and print image ID on success"),
    Flag("rm", "", "bool", "Remove intermediate containers after a successful build"),
    Flag("secret", "", "list", 'Secret to expose to the build (format: "id=mysecret[,src=/local/secret|,env=NAME]")'),
    Flag("shm-size", "", "string", 'Size of "/dev/shm"', "bytes"),
    Flag("ssh", "", "list", 'SSH agent socket to expose to the build (format: "default|<id>[=<socket>]")'),
    Flag("tag", "t", "list", 'Name and optionally a tag (format: "name:tag")'),
    Flag("target", "", "string", "Set the target build stage to build"),
    Flag("ulimit", "", "list", "Ulimit options", "ulimit"),
)

NOT_SENT = (".git", ".venv", "venv", "**/__pycache__", "**/*.pyc", ".tox", ".nox", "**/.mypy_cache", "**/.pytest_cache", "**/.ruff_cache")
LOCKS = frozenset({"pyproject.toml", "uv.lock", "pylock.toml", "requirements.txt", ".python-version"})
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "PIP_INDEX_URL")


def build() -> Command:
    return Command(_build, "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile or a Python project", FLAGS, minimum=1, maximum=1)


def _build(options: Options, words: list[str]) -> int:
    from atoll.cli.verbs.registry import auth_configs

    headers = {"Content-Type": "application/x-tar", "X-Registry-Config": auth_configs()}
    data: bytes | Iterable[bytes]
    if options["python"]:
        path, (query, data) = "/atoll/build/python", _python(options, words[0])
    else:
        path, query = "/build", _query(options)
        data, query["dockerfile"] = _context(options, words[0], query)
    with _session(options) as query["session"]:
        reply = engine().request("POST", path, query, data=data, headers=headers)
        found = _quiet(reply.lines()) if options["quiet"] else follow(reply.lines())
    identifier = next((aux["ID"] for aux in reversed(found) if "ID" in aux), "")
    if options["quiet"]:
        print(identifier)
    if options["iidfile"]:
        with open(options["iidfile"], "w", encoding="utf-8") as file:
            file.write(identifier)
    return 0


def _session(options: Options) -> AbstractContextManager[str | None]:
    """The session that gives secrets and agents, by its id; None where the build needs none."""
    if not options["secret"] and not options["ssh"]:
        return nullcontext()
    from atoll.cli.buildsession import session

    return session(engine(), options["secret"], options["ssh"])


def _quiet(messages: Iterable[Any]) -> list[Any]:
    """Keep the steps' output back, and show it only when the build fails."""
    kept: list[str] = []

    def hold() -> Iterable[Any]:
        for message in messages:
            if "stream" in message:
                kept.append(message["stream"])
            else:
                yield message

    try:
        return follow(hold(), quiet=True)
    except Exception:
        sys.stderr.write("".join(kept))
        raise


def _query(options: Options) -> dict[str, Any]:
    from atoll.cli.keyvalues import mapping
    from atoll.units import parse_bytes

    arguments = {}
    for word in options["build-arg"]:
        name, equals, value = word.partition("=")
        if equals:
            arguments[name] = value
        elif name in os.environ:
            arguments[name] = os.environ[name]
    return {
        "t": options["tag"],
        "buildargs": json.dumps(arguments),
        "labels": json.dumps(mapping(options["label"])),
        "cachefrom": json.dumps(options["cache-from"]),
        "extrahosts": options["add-host"],
        "nocache": options["no-cache"],
        "pull": options["pull"] or None,
        "rm": options.given.get("rm", True),
        "forcerm": options["force-rm"],
        "target": options["target"],
        "networkmode": options["network"],
        "platform": options["platform"],
        "memory": parse_bytes(options["memory"]) if options["memory"] else None,
        "shmsize": parse_bytes(options["shm-size"]) if options["shm-size"] else None,
        "version": "1",
    }


def _python(options: Options, place: str) -> tuple[dict[str, Any], Iterable[bytes]]:
    """What is asked for, and the project as it is sent: without what no image needs."""
    from atoll.build.ignore import Ignore
    from atoll.cli.keyvalues import mapping

    if options["file"] or options["secret"] or options["ssh"] or options["target"]:
        raise UsageError("--python takes no Dockerfile's options: --file, --secret, --ssh, --target")
    if not os.path.isdir(place):
        raise CommandFailed(f"unable to prepare context: {place} is no directory")
    root = os.path.realpath(place)
    path = os.path.join(root, ".dockerignore")
    text = "\n".join(NOT_SENT)
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            text += "\n" + file.read(context.IGNORE_FILE_MAX)
    query = {
        "t": options["tag"],
        "base": options["base"],
        "cmd": options["cmd"],
        "extra": options["extra"],
        "index": options["index-url"] or [url for name in INDEX_VARIABLES if (url := os.environ.get(name))][:1],
        "labels": json.dumps(mapping(options["label"])),
        "nocache": options["no-cache"],
        "pull": options["pull"] or None,
    }
    return query, context.stream(root, Ignore.parse(text), LOCKS, {})


def _context(options: Options, place: str, query: dict[str, Any]) -> tuple[bytes | Iterable[bytes], str]:
    """What is sent as the context, and the Dockerfile's name within it."""
    named = options["file"]
    if place.startswith(("http://", "https://", "git://", "git@", "github.com/")):
        query["remote"] = place
        return b"", named or "Dockerfile"
    if place == "-":
        if named == "-":
            raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
        return _standard_input(named)
    if not os.path.isdir(place):
        problem = "context must be a directory" if os.path.exists(place) else "path not found"
        raise CommandFailed(f"unable to prepare context: {problem}: {place}")
    return _directory(place, named)


def _standard_input(named: str | None) -> tuple[bytes | Iterable[bytes], str]:
    """A tar (plain or compressed) is the context; anything else is a Dockerfile without one."""
    data = sys.stdin.buffer.read()
    compressed = data[:2] == b"\x1f\x8b" or data[:3] == b"BZh" or data[:6] == b"\xfd7zXZ\x00" or data[:4] == b"\x28\xb5\x2f\xfd"
    if compressed or data[257:262] == b"ustar":
        return data, named or "Dockerfile"
    from atoll.build.ignore import Ignore

    if not data.strip():
        raise CommandFailed("failed to read Dockerfile from STDIN: it is empty")
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        return b"".join(context.stream(empty, Ignore(), frozenset(), {"Dockerfile": data})), "Dockerfile"


def _directory(place: str, named: str | None) -> tuple[Iterable[bytes], str]:
    root = os.path.realpath(place)
    extra: dict[str, bytes] = {}
    if named == "-":
        name, extra = ".dockerfile.stdin", {".dockerfile.stdin": sys.stdin.buffer.read()}
        path = os.path.join(root, name)
    else:
        path = os.path.join(root, "Dockerfile") if named is None else os.path.abspath(named)
        if named is not None and not os.path.exists(path) and os.path.exists(os.path.join(root, named)):
            path = os.path.join(root, named)  # docker reads -f relative to the context as well
        if not os.path.isfile(path):
            raise CommandFailed(f"unable to prepare context: there is no Dockerfile at {path}: name one with -f")
        name = os.path.relpath(os.path.realpath(path), root)
        if name.startswith(".."):
            with open(path, "rb") as file:
                name, extra = ".dockerfile.outside", {".dockerfile.outside": file.read()}
    ignore = context.read_ignore(root, path)
    return context.stream(root, ignore, frozenset({name, ".dockerignore"}), extra), name.replace(os.sep, "/")


def prune() -> Command:
    flags = (
        Flag("all", "a", "bool", "Remove all unused build cache, not just dangling ones"),
        Flag("filter", "", "list", 'Provide filter values (e.g. "until=24h")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    )
    return Command(_prune, "[OPTIONS]", "Remove build cache", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    which = "all build cache" if options["all"] else "all dangling build cache"
    if not confirmed(f"This will remove {which}.", options["force"]):
        return 1
    found = engine().post("/build/prune", {"all": options["all"], "filters": filters(options["filter"])})
    print("Total reclaimed space:", human.size(found.get("SpaceReclaimed") or 0))
    return 0
