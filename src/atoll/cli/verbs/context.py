"""`context`: engines by name, kept where docker keeps them (see atoll.cli.contexts)."""

from __future__ import annotations

import os
import sys

from atoll.cli import contexts
from atoll.cli.flags import Command, Flag, Options, UsageError
from atoll.cli.main import Context
from atoll.cli.output import show as show_rows
from atoll.cli.session import CommandFailed
from atoll.cli.wire import Address, EngineUnreachable
from atoll.home import ENGINE_SOCKET, home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = Flag("format", "f", "string", "Format output using a custom template: 'json' or a Go template")
DESCRIPTION = Flag("description", "", "string", "Description of the context")
DOCKER = Flag("docker", "", "string", "Set the docker endpoint: host=tcp://...,ca=FILE,cert=FILE,key=FILE", "stringToString")
FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
COLUMNS = (("NAME", "Shown"), ("DESCRIPTION", "Description"), ("DOCKER ENDPOINT", "DockerEndpoint"), ("ERROR", "Error"))
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


def _chosen() -> str:
    return contexts.current(Context.program, Context.options.get("context"))


def _default_host() -> str:
    if Context.program == "docker" and os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    return f"unix://{os.path.join(home_directory(os.environ), ENGINE_SOCKET)}"


def listing() -> Command:
    flags = (
        Flag("format", "", "string", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("quiet", "q", "bool", "Only show context names"),
    )
    return Command(_listing, "[OPTIONS]", "List contexts", flags, maximum=0)


def _listing(options: Options, _: list[str]) -> int:
    current = _chosen()
    rows = [_row(contexts.DEFAULT, "This instance's own engine", _default_host(), current)]
    for meta in contexts.stored():
        endpoint = (meta.get("Endpoints") or {}).get("docker") or {}
        rows.append(_row(str(meta.get("Name")), (meta.get("Metadata") or {}).get("Description") or "", endpoint.get("Host") or "", current))
    if options["quiet"]:
        print("\n".join(row["Name"] for row in rows))
    else:
        shown = rows if not options["format"] or options["format"].startswith("table") else [_without(row, "Shown") for row in rows]
        show_rows(shown, COLUMNS, options["format"])
    return 0


def _row(name: str, description: str, host: str, current: str) -> dict[str, Any]:
    is_current = name == current
    shown = f"{name} *" if is_current else name
    return {"Current": is_current, "Description": description, "DockerEndpoint": host, "Error": "", "Name": name, "Shown": shown}


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def show() -> Command:
    return Command(_show, "", "Print the name of the current context", maximum=0)


def _show(_: Options, __: list[str]) -> int:
    print(_chosen())
    return 0


def use() -> Command:
    return Command(_use, "CONTEXT", "Set the current context", minimum=1, maximum=1)


def _use(_: Options, names: list[str]) -> int:
    contexts.choose(Context.program, names[0])
    print(names[0])
    print(f'Current context is now "{names[0]}"', file=sys.stderr)
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT") if Context.program == "docker" else ("ATOLL_CONTEXT",):
        if os.environ.get(variable):
            print(f"Warning: {variable} environment variable overrides the active context: unset it to use this one.", file=sys.stderr)
    return 0


def create() -> Command:
    flags = (DESCRIPTION, DOCKER, Flag("from", "", "string", "Create context from a named context"))
    return Command(_create, "[OPTIONS] CONTEXT", "Create a context", flags, minimum=1, maximum=1)


def _create(options: Options, names: list[str]) -> int:
    name = names[0]
    _check_name(name)
    if os.path.exists(contexts.place(name)):
        raise CommandFailed(f'context "{name}" already exists')
    if options["docker"] is None:
        host, tls, skip = _existing(options["from"] or _chosen())
    else:
        host, tls, skip = _endpoint(options["docker"])
    contexts.save(name, options["description"] or "", host, tls, skip_verify=skip)
    print(name)
    print(f'Successfully created context "{name}"', file=sys.stderr)
    return 0


def _existing(name: str) -> tuple[str, dict[str, bytes], bool]:
    if name == contexts.DEFAULT:
        return _default_host(), {}, False
    endpoint = (contexts.load(name).get("Endpoints") or {}).get("docker") or {}
    return str(endpoint.get("Host") or ""), contexts.tls_files(name), bool(endpoint.get("SkipTLSVerify"))


def _check_name(name: str) -> None:
    if name == contexts.DEFAULT:
        raise CommandFailed('"default" is a reserved context name')
    if len(name) < 2 or name[0] not in LETTERS or set(name) - LETTERS - set("_.+-"):
        raise CommandFailed(f'context name "{name}" is invalid, names are validated against regexp "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"')


def _endpoint(text: str) -> tuple[str, dict[str, bytes], bool]:
    """The host, the certificates and whether not to verify, of --docker."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if unknown := sorted(set(fields) - {"host", "skip-tls-verify", "from", *FILES}):
        raise UsageError(f"unrecognized config key: {unknown[0]}")
    if "from" in fields:
        return _existing(fields["from"])
    host = fields.get("host") or _default_host()
    Address.parse(host)
    tls = {}
    for key, file in FILES.items():
        if fields.get(key):
            with open(fields[key], "rb") as opened:
                tls[file] = opened.read()
    return host, tls, fields.get("skip-tls-verify", "").lower() in ("true", "1")


def update() -> Command:
    return Command(_update, "[OPTIONS] CONTEXT", "Update a context", (DESCRIPTION, DOCKER), minimum=1, maximum=1)


def _update(options: Options, names: list[str]) -> int:
    name = names[0]
    meta = contexts.load(name)
    host, tls, skip = _existing(name) if options["docker"] is None else _endpoint(options["docker"])
    description = options["description"] if options["description"] is not None else (meta.get("Metadata") or {}).get("Description") or ""
    contexts.remove(name)
    contexts.save(name, description, host, tls, skip_verify=skip)
    print(name)
    print(f'Successfully updated context "{name}"', file=sys.stderr)
    return 0


def remove() -> Command:
    flags = (Flag("force", "f", "bool", "Force the removal of a context in use"),)
    return Command(_remove, "[OPTIONS] CONTEXT [CONTEXT...]", "Remove one or more contexts", flags, minimum=1)


def _remove(options: Options, names: list[str]) -> int:
    status = 0
    for name in names:
        try:
            if name == contexts.DEFAULT:
                raise CommandFailed('context "default" cannot be removed')
            if name == _chosen():
                if not options["force"]:
                    raise CommandFailed(f'context "{name}" is in use, set -f flag to force remove')
                contexts.choose(Context.program, contexts.DEFAULT)
            contexts.remove(name)
            print(name)
        except (CommandFailed, EngineUnreachable) as error:
            if not (options["force"] and isinstance(error, EngineUnreachable)):
                print(error, file=sys.stderr)
                status = 1
    return status


def inspect() -> Command:
    return Command(_inspect, "[OPTIONS] [CONTEXT] [CONTEXT...]", "Display detailed information on one or more contexts", (FORMAT,))


def _inspect(options: Options, names: list[str]) -> int:
    from atoll.cli.quickjson import compact, indented

    found = [_described(name) for name in names or [_chosen()]]
    if not options["format"]:
        print(indented(found))
        return 0
    for one in found:
        if options["format"] == "json":
            print(compact(one))
        else:
            from atoll.cli.template import Template

            print(Template(options["format"]).render(one))
    return 0


def _described(name: str) -> dict[str, Any]:
    if name == contexts.DEFAULT:
        endpoints = {"docker": {"Host": _default_host(), "SkipTLSVerify": False}}
        storage = {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
        return {"Name": name, "Metadata": {}, "Endpoints": endpoints, "TLSMaterial": {}, "Storage": storage}
    meta, files = contexts.load(name), sorted(contexts.tls_files(name))
    return {
        "Name": name,
        "Metadata": meta.get("Metadata") or {},
        "Endpoints": meta.get("Endpoints") or {},
        "TLSMaterial": {"docker": files} if files else {},
        "Storage": {"MetadataPath": contexts.place(name), "TLSPath": os.path.dirname(contexts.tls_place(name))},
    }


def export() -> Command:
    return Command(_export, "CONTEXT [FILE|-]", "Export a context to a tar archive FILE or a tar stream on STDOUT", minimum=1, maximum=2)


def _export(_: Options, words: list[str]) -> int:
    import io
    import json
    import tarfile

    name, path = words[0], words[1] if len(words) > 1 else f"{words[0]}.dockercontext"
    files = {"meta.json": json.dumps(contexts.load(name), separators=(",", ":")).encode()}
    files |= {f"tls/docker/{file}": data for file, data in contexts.tls_files(name).items()}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    if path == "-":
        if os.isatty(1):
            raise CommandFailed("cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.buffer.write(buffer.getvalue())
        return 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
        written.write(buffer.getvalue())
    print(f"Written file {path!r}".replace("'", '"'), file=sys.stderr)
    return 0


def import_() -> Command:
    return Command(_import, "CONTEXT FILE|-", "Import a context from a tar file", minimum=2, maximum=2)


def _import(_: Options, words: list[str]) -> int:
    import io
    import json
    import tarfile

    name, path = words
    _check_name(name)
    if os.path.exists(contexts.place(name)):
        raise CommandFailed(f'context "{name}" already exists')
    if path == "-":
        archive = sys.stdin.buffer.read()
    else:
        with open(path, "rb") as file:
            archive = file.read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.isreg() and member.size < 1 << 20 else None
            if opened is not None:
                found[member.name] = opened.read()
    if "meta.json" not in found:
        raise CommandFailed("invalid context: no metadata found")
    meta = json.loads(found["meta.json"])
    endpoint = (meta.get("Endpoints") or {}).get("docker") or {}
    tls = {file: found[f"tls/docker/{file}"] for file in FILES.values() if f"tls/docker/{file}" in found}
    description = (meta.get("Metadata") or {}).get("Description") or ""
    contexts.save(name, description, str(endpoint.get("Host") or ""), tls, skip_verify=bool(endpoint.get("SkipTLSVerify")))
    print(name)
    print(f'Successfully imported context "{name}"', file=sys.stderr)
    return 0
