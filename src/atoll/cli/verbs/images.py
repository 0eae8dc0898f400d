"""Verbs on images that need no registry: listing, history, tag, rmi, save, load, import, export, commit, prune, bootstrap."""

from __future__ import annotations

import os
import sys

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.output import show
from atoll.cli.progress import follow
from atoll.cli.session import CommandFailed, confirmed, engine, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

COLUMNS = (("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size"))
BLOCK = 1 << 18
NONE = "<none>"


def listing() -> Command:
    flags = (
        Flag("all", "a", "bool", "Show all images (default hides intermediate images)"),
        Flag("digests", "", "bool", "Show digests"),
        Flag("filter", "f", "list", "Filter output based on conditions provided", "filter"),
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    )
    return Command(_listing, "[OPTIONS] [REPOSITORY[:TAG]]", "List images", flags, maximum=1)


def _listing(options: Options, words: list[str]) -> int:
    wanted = filters(options["filter"]) or {}
    if words:
        wanted["reference"] = words
    found = engine().get("/images/json", {"all": options["all"], "filters": wanted or None, "digests": options["digests"] or None})
    rows = [row for image in found for row in _rows(image, full=options["no-trunc"], digests=options["digests"])]
    if options["quiet"] and not options["format"]:
        for identifier in dict.fromkeys(row["ID"] for row in rows):
            print(identifier)
        return 0
    columns = (*COLUMNS[:2], ("DIGEST", "Digest"), *COLUMNS[2:]) if options["digests"] else COLUMNS
    show(rows, columns, options["format"])
    return 0


def _rows(image: dict[str, Any], *, full: bool, digests: bool) -> Iterator[dict[str, Any]]:
    by_repository = {name.partition("@")[0]: name.partition("@")[2] for name in image.get("RepoDigests") or []}
    tags = [tag.rpartition(":")[::2] for tag in image.get("RepoTags") or [] if tag != "<none>:<none>"]
    for repository, tag in tags or [(name, NONE) for name in by_repository] or [(NONE, NONE)]:
        yield {
            "Repository": repository,
            "Tag": tag,
            "Digest": by_repository.get(repository, NONE) if digests else NONE,
            "ID": image["Id"] if full else human.short_id(image["Id"]),
            "CreatedSince": human.ago(image["Created"]),
            "CreatedAt": _local(image["Created"]),
            "Size": human.size(image["Size"]),
            "VirtualSize": human.size(image["Size"]),
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "Containers": "N/A",
        }


def _local(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def history() -> Command:
    flags = (
        Flag("format", "", "string", "Format output using a custom template"),
        Flag("human", "H", "bool", "Print sizes and dates in human readable format"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    )
    return Command(_history, "[OPTIONS] IMAGE", "Show the history of an image", flags, minimum=1, maximum=1)


def _history(options: Options, words: list[str]) -> int:
    full = options["no-trunc"]
    rows = []
    for entry in engine().get(f"/images/{words[0]}/history"):
        created = entry["CreatedBy"].replace("\t", " ")
        rows.append(
            {
                "ID": entry["Id"] if full or entry["Id"] == "<missing>" else human.short_id(entry["Id"]),
                "CreatedSince": human.ago(entry["Created"]) if entry["Created"] > 0 else "N/A",
                "CreatedAt": _local(entry["Created"]),
                "CreatedBy": created if full or len(created) <= 45 else created[:44] + "…",
                "Size": human.size(entry["Size"]),
                "Comment": entry["Comment"],
            }
        )
    if options["quiet"]:
        print("\n".join(row["ID"] for row in rows))
        return 0
    columns = (("IMAGE", "ID"), ("CREATED", "CreatedSince"), ("CREATED BY", "CreatedBy"), ("SIZE", "Size"), ("COMMENT", "Comment"))
    show(rows, columns, options["format"])
    return 0


def tag() -> Command:
    return Command(
        _tag, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", minimum=2, maximum=2
    )


def split_tag(reference: str) -> tuple[str, str]:
    """`host:5000/name:tag` to repository and tag; the tag may be empty."""
    head, slash, last = reference.rpartition("/")
    name, _, label = last.partition(":")
    return f"{head}{slash}{name}", label


def _tag(_: Options, words: list[str]) -> int:
    repository, label = split_tag(words[1])
    engine().post(f"/images/{words[0]}/tag", {"repo": repository, "tag": label or "latest"})
    return 0


def remove() -> Command:
    flags = (
        Flag("force", "f", "bool", "Force removal of the image"),
        Flag("no-prune", "", "bool", "Do not delete untagged parents"),
    )
    return Command(_remove, "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", flags, minimum=1)


def _remove(options: Options, names: list[str]) -> int:
    from atoll.cli.wire import EngineError

    client, status = engine(), 0
    for name in names:
        try:
            for line in client.delete(f"/images/{name}", {"force": options["force"], "noprune": options["no-prune"]}):
                for word, what in line.items():
                    print(f"{word}: {what}")
        except EngineError as error:
            if error.status == 404 and options["force"]:
                continue
            print(f"Error response from daemon: {error}", file=sys.stderr)
            status = 1
    return status


def save() -> Command:
    flags = (
        Flag("output", "o", "string", "Write to a file, instead of STDOUT"),
        Flag("platform", "", "string", "Save only the given platform"),
    )
    return Command(_save, "[OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive", flags, minimum=1)


def _save(options: Options, names: list[str]) -> int:
    _to_file(options["output"], "/images/get", {"names": names, "platform": options["platform"]})
    return 0


def export() -> Command:
    flags = (Flag("output", "o", "string", "Write to a file, instead of STDOUT"),)
    return Command(_export, "[OPTIONS] CONTAINER", "Export a container's filesystem as a tar archive", flags, minimum=1, maximum=1)


def _export(options: Options, names: list[str]) -> int:
    _to_file(options["output"], f"/containers/{names[0]}/export", None)
    return 0


def _to_file(output: str | None, path: str, query: dict[str, Any] | None) -> None:
    """Stream an archive to a file that appears whole or not at all, or to standard output."""
    if output is None and os.isatty(1):
        raise CommandFailed("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    reply = engine().request("GET", path, query)
    try:
        if output is None:
            from atoll.cli.terminal import write_all

            for chunk in reply.chunks():
                write_all(1, chunk)
            return
        partial = f"{output}.{os.getpid()}.part"
        try:
            with open(partial, "wb") as file:
                for chunk in reply.chunks():
                    file.write(chunk)
            os.replace(partial, output)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)
    finally:
        reply.close()


def blocks(path: str | None) -> Iterator[bytes]:
    """A file's content, or standard input's, in blocks."""
    if path is None or path == "-":
        while data := os.read(0, BLOCK):
            yield data
        return
    with open(path, "rb") as file:
        while data := file.read(BLOCK):
            yield data


def load() -> Command:
    flags = (
        Flag("input", "i", "string", "Read from tar archive file, instead of STDIN"),
        Flag("platform", "", "string", "Load only the given platform"),
        Flag("quiet", "q", "bool", "Suppress the load output"),
    )
    return Command(_load, "[OPTIONS]", "Load an image from a tar archive or STDIN", flags, maximum=0)


def _load(options: Options, _: list[str]) -> int:
    path = options["input"]
    if path is None and os.isatty(0):
        raise CommandFailed("requested load from stdin, but stdin is empty")
    if path is not None and not os.path.isfile(path):
        raise CommandFailed(f"open {path}: no such file or directory")
    headers = {"Content-Type": "application/x-tar"}
    query = {"quiet": options["quiet"], "platform": options["platform"]}
    reply = engine().request("POST", "/images/load", query, data=blocks(path), headers=headers)
    follow(reply.lines())
    return 0


def import_() -> Command:
    flags = (
        Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", "string", "Set commit message for imported image"),
        Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
    )
    return Command(
        _import,
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        "Import the contents from a tarball to create a filesystem image",
        flags,
        minimum=1,
        maximum=2,
    )


def _import(options: Options, words: list[str]) -> int:
    source = words[0]
    repository, label = split_tag(words[1]) if len(words) == 2 else (None, None)
    remote = source.startswith(("http://", "https://"))
    if not remote and source != "-" and not os.path.isfile(source):
        raise CommandFailed(f"open {source}: no such file or directory")
    query = {
        "fromSrc": source if remote else "-",
        "repo": repository,
        "tag": label,
        "message": options["message"],
        "changes": options["change"],
        "platform": options["platform"],
    }
    follow(engine().request("POST", "/images/create", query, data=b"" if remote else blocks(source)).lines())
    return 0


def commit() -> Command:
    flags = (
        Flag("author", "a", "string", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")'),
        Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", "string", "Commit message"),
        Flag("pause", "p", "bool", "Pause container during commit"),
    )
    return Command(
        _commit,
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        flags,
        minimum=1,
        maximum=2,
    )


def _commit(options: Options, words: list[str]) -> int:
    repository, label = split_tag(words[1]) if len(words) == 2 else (None, None)
    query = {
        "container": words[0],
        "repo": repository,
        "tag": label or None,
        "author": options["author"],
        "comment": options["message"],
        "changes": options["change"],
        "pause": options.given.get("pause", True),
    }
    print(engine().post("/commit", query)["Id"])
    return 0


def prune() -> Command:
    flags = (
        Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
        Flag("filter", "", "list", 'Provide filter values (e.g. "until=<timestamp>")', "filter"),
        Flag("force", "f", "bool", "Do not prompt for confirmation"),
    )
    return Command(_prune, "[OPTIONS]", "Remove unused images", flags, maximum=0)


def _prune(options: Options, _: list[str]) -> int:
    which = "all images without at least one container associated to them" if options["all"] else "all dangling images"
    if not confirmed(f"This will remove {which}.", options["force"]):
        return 1
    wanted = {**(filters(options["filter"]) or {}), "dangling": ["false" if options["all"] else "true"]}
    found = engine().post("/images/prune", {"filters": wanted})
    if found["ImagesDeleted"]:
        print("Deleted Images:")
        for line in found["ImagesDeleted"]:
            for word, what in line.items():
                print(f"{word.lower()}: {what}")
        print()
    print("Total reclaimed space:", human.size(found["SpaceReclaimed"]))
    return 0


def bootstrap() -> Command:
    flags = (
        Flag("include", "", "list", "More packages to put in", "package"),
        Flag("mirror", "", "string", "Mirror to take the packages from (default: the host's own)", "url"),
        Flag("variant", "", "string", "How much to put in: essential, apt, minbase (default), important or standard"),
    )
    return Command(
        _bootstrap,
        "[OPTIONS] debian:SUITE | ubuntu:SUITE",
        "Make a base image from a distribution's own packages, signatures checked; no registry is needed",
        flags,
        minimum=1,
        maximum=1,
    )


def _bootstrap(options: Options, words: list[str]) -> int:
    name, _, suite = words[0].partition(":")
    if not suite:
        raise UsageError(f"'{words[0]}' names no suite: write for instance {name or 'debian'}:bookworm")
    query = {"ref": words[0], "variant": options["variant"], "mirror": options["mirror"], "include": options["include"]}
    follow(engine().request("POST", "/atoll/images/bootstrap", query).lines())
    return 0
