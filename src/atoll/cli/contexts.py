"""Contexts: engines by name, in the store that docker's own command reads ($DOCKER_CONFIG/contexts).

Which one is used: -H, then --context, then ATOLL_CONTEXT, then what `atoll context use` chose (a file in the home, so that docker's choice
and ours do not disturb each other); "default" is this instance's own engine. Called by the name docker, the rules are docker's:
DOCKER_HOST, DOCKER_CONTEXT and config.json's currentContext.
"""

from __future__ import annotations

import os

from atoll.cli.wire import Address, EngineUnreachable
from atoll.home import home_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT = "default"
CHOSEN = "context"  # below the home: the name that `context use` chose
FILES = {"ca.pem": "authority", "cert.pem": "certificate", "key.pem": "key"}


def config_directory() -> str:
    return os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")


def current(program: str, chosen: str | None) -> str:
    """The name of the context of this command line; CHOSEN is --context."""
    if chosen:
        return chosen
    if program == "docker":
        if os.environ.get("DOCKER_HOST"):
            return DEFAULT
        return os.environ.get("DOCKER_CONTEXT") or _docker_choice() or DEFAULT
    return os.environ.get("ATOLL_CONTEXT") or _own_choice() or DEFAULT


def _own_choice() -> str:
    try:
        with open(os.path.join(home_directory(os.environ), CHOSEN), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _docker_choice() -> str:
    from atoll.cli.verbs.registry import read_config

    return str(read_config().get("currentContext") or "")


def choose(program: str, name: str) -> None:
    """Makes NAME the one that is used when nothing is said. Raises EngineUnreachable where there is none of that name."""
    if name != DEFAULT:
        load(name)
    if program == "docker":
        from atoll.cli.verbs.registry import read_config, write_config

        config = {key: value for key, value in read_config().items() if key != "currentContext"}
        write_config(config if name == DEFAULT else {**config, "currentContext": name})
        return
    from atoll.home import make_home

    home = home_directory(os.environ)
    make_home(home)
    path = os.path.join(home, CHOSEN)
    with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
        file.write(f"{name}\n")
    os.replace(f"{path}.{os.getpid()}", path)


def _digest(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def place(name: str) -> str:
    """The directory of a context's metadata."""
    return os.path.join(config_directory(), "contexts", "meta", _digest(name))


def tls_place(name: str) -> str:
    return os.path.join(config_directory(), "contexts", "tls", _digest(name), "docker")


def load(name: str) -> dict[str, Any]:
    """A context's metadata. Raises EngineUnreachable where there is none."""
    import json

    try:
        with open(os.path.join(place(name), "meta.json"), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        raise EngineUnreachable(f'context "{name}": context not found: open {place(name)}/meta.json: no such file or directory') from None
    except ValueError as error:
        raise EngineUnreachable(f'context "{name}": {place(name)}/meta.json is not JSON: {error}') from error
    return found if isinstance(found, dict) else {}


def stored() -> Iterator[dict[str, Any]]:
    """Every context but the default one, by name."""
    import json

    directory = os.path.join(config_directory(), "contexts", "meta")
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    found = []
    for name in names:
        try:
            with open(os.path.join(directory, name, "meta.json"), encoding="utf-8") as file:
                found.append(json.load(file))
        except (OSError, ValueError):
            continue
    yield from sorted(found, key=lambda meta: str(meta.get("Name")))


def save(name: str, description: str, host: str, tls: dict[str, bytes], *, skip_verify: bool = False) -> None:
    import json

    meta = {
        "Name": name,
        "Metadata": {"Description": description} if description else {},
        "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip_verify}},
    }
    _write(os.path.join(place(name), "meta.json"), json.dumps(meta, separators=(",", ":")).encode())
    for file, data in tls.items():
        _write(os.path.join(tls_place(name), file), data)


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    os.replace(partial, path)


def remove(name: str) -> None:
    import shutil

    load(name)
    shutil.rmtree(place(name))
    shutil.rmtree(os.path.dirname(tls_place(name)), ignore_errors=True)


def tls_files(name: str) -> dict[str, bytes]:
    """The certificates that a context holds, by file name."""
    found = {}
    for file in FILES:
        try:
            with open(os.path.join(tls_place(name), file), "rb") as opened:
                found[file] = opened.read()
        except FileNotFoundError:
            continue
    return found


def address(name: str) -> Address:
    """Where the engine of a context answers. Raises EngineUnreachable."""
    endpoint = (load(name).get("Endpoints") or {}).get("docker") or {}
    directory = tls_place(name)
    files = {field: path for file, field in FILES.items() if os.path.exists(path := os.path.join(directory, file))}
    return Address.parse(str(endpoint.get("Host") or ""), files or None, verify=not endpoint.get("SkipTLSVerify"))
