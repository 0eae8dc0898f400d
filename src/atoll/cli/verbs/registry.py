"""Verbs that talk to registries through the engine: pull, push, login, logout, and the credentials file they share with docker.

Credentials live where docker keeps them ($DOCKER_CONFIG/config.json, else ~/.docker/config.json), so that both commands see one login.
"""

from __future__ import annotations

import base64
import json
import os
import sys

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.progress import follow
from atoll.cli.session import CommandFailed, engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCKER_HUB = "https://index.docker.io/v1/"


def pull() -> Command:
    flags = (
        Flag("all-tags", "a", "bool", "Download all tagged images in the repository"),
        Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    )
    return Command(_pull, "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry", flags, minimum=1, maximum=1)


def _pull(options: Options, words: list[str]) -> int:
    from atoll.cli.verbs.create import _tagged

    name = words[0] if options["all-tags"] else _tagged(words[0])
    if name != words[0] and not options["quiet"]:
        print("Using default tag: latest")
    query = {"fromImage": name, "platform": options["platform"]}
    follow(engine().request("POST", "/images/create", query, headers=auth_header(name)).lines(), quiet=options["quiet"])
    print(canonical(name))
    return 0


def canonical(name: str) -> str:
    """The full name docker prints last: docker.io/library/debian:bookworm."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def push() -> Command:
    flags = (
        Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        Flag("platform", "", "string", "Push a platform-specific manifest as a single-platform image"),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    )
    return Command(_push, "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", flags, minimum=1, maximum=1)


def _push(options: Options, words: list[str]) -> int:
    from atoll.cli.verbs.images import split_tag

    repository, label = split_tag(words[0])
    query = {"tag": None if options["all-tags"] else label or "latest", "platform": options["platform"]}
    if not label and not options["all-tags"] and not options["quiet"]:
        print("Using default tag: latest")
    headers = auth_header(words[0]) or {"X-Registry-Auth": _encode({})}
    follow(engine().request("POST", f"/images/{repository}/push", query, headers=headers).lines(), quiet=options["quiet"])
    if options["quiet"]:
        print(canonical(words[0]))
    return 0


def login() -> Command:
    flags = (
        Flag("password", "p", "string", "Password or Personal Access Token (PAT)"),
        Flag("password-stdin", "", "bool", "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag("username", "u", "string", "Username"),
    )
    return Command(_login, "[OPTIONS] [SERVER]", "Authenticate to a registry", flags, maximum=1)


def _login(options: Options, words: list[str]) -> int:
    server = server_address(words[0]) if words else DOCKER_HUB
    user, password = options["username"], options["password"]
    if options["password-stdin"]:
        if password is not None:
            raise CommandFailed("--password and --password-stdin are mutually exclusive")
        if not user:
            raise CommandFailed("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password is not None:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    if not user or password is None:
        if not os.isatty(0):
            raise CommandFailed("Cannot perform an interactive login from a non TTY device")
        import getpass

        user = user or input("Username: ").strip()
        password = password if password is not None else getpass.getpass("Password: ")
    answer = engine().post("/auth", body={"username": user, "password": password, "serveraddress": server})
    token = answer.get("IdentityToken")
    entry = {"identitytoken": token} if token else {}
    entry["auth"] = base64.b64encode(f"{user}:{'' if token else password}".encode()).decode()
    config = read_config()
    config.setdefault("auths", {})[server] = entry
    write_config(config)
    print(f"\nWARNING! Your credentials are stored unencrypted in '{config_path()}'.", file=sys.stderr)
    print(answer.get("Status") or "Login Succeeded")
    return 0


def logout() -> Command:
    return Command(_logout, "[SERVER]", "Log out from a registry", maximum=1)


def _logout(_: Options, words: list[str]) -> int:
    server = server_address(words[0]) if words else DOCKER_HUB
    config = read_config()
    if (config.get("auths") or {}).pop(server, None) is None:
        print(f"Not logged in to {server}")
        return 0
    write_config(config)
    print(f"Removing login credentials for {server}")
    return 0


def server_address(text: str) -> str:
    bare = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    return DOCKER_HUB if bare in ("docker.io", "index.docker.io", "registry-1.docker.io", "index.docker.io/v1") else bare


def config_path() -> str:
    return os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json")


def read_config() -> dict[str, Any]:
    try:
        with open(config_path(), encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CommandFailed(f"{config_path()} is not JSON ({error}): mend or remove it") from error
    return found if isinstance(found, dict) else {}


def write_config(config: dict[str, Any]) -> None:
    """Replace the file in one step; only its owner may read it. Where it is a link, what it leads to is replaced."""
    path = os.path.realpath(config_path())
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    partial = f"{path}.{os.getpid()}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as file:
        json.dump(config, file, indent="\t")
    os.replace(partial, path)


def auth_header(image: str) -> dict[str, str] | None:
    """X-Registry-Auth for the registry IMAGE names, where there is a login for it (base64url JSON, Engine API "Authentication")."""
    host = canonical(image).partition("/")[0]
    server = DOCKER_HUB if host == "docker.io" else host
    config = read_config()
    found = _stored(config, server) or _helped(config, server)
    return {"X-Registry-Auth": _encode({**found, "serveraddress": server})} if found else None


def _stored(config: dict[str, Any], server: str) -> dict[str, str] | None:
    for name, entry in (config.get("auths") or {}).items():
        if server_address(name) != server_address(server):
            continue
        if entry.get("identitytoken"):
            return {"identitytoken": entry["identitytoken"]}
        if entry.get("auth"):
            user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
            return {"username": user, "password": password}
    return None


def _helped(config: dict[str, Any], server: str) -> dict[str, str] | None:
    """Ask the credential helper the configuration names for SERVER (docker-credential-helpers protocol: `get`)."""
    helper = (config.get("credHelpers") or {}).get(server) or config.get("credsStore")
    if not helper:
        return None
    import subprocess

    try:
        done = subprocess.run([f"docker-credential-{helper}", "get"], input=server, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    answer = json.loads(done.stdout)
    if answer.get("Username") == "<token>":
        return {"identitytoken": answer["Secret"]}
    return {"username": answer["Username"], "password": answer["Secret"]}


def auth_configs() -> str:
    """X-Registry-Config: every stored login, for a build whose stages may come from any registry."""
    config = read_config()
    names = dict.fromkeys((*(config.get("auths") or {}), *(config.get("credHelpers") or {})))
    found = {name: _stored(config, name) or _helped(config, name) for name in names}
    return _encode({name: entry for name, entry in found.items() if entry})


def _encode(fields: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()
