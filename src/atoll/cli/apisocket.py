"""`--use-api-socket`: a container that may use the engine itself, with the registry logins of who started it.

The socket appears where clients look for it, the logins as a file of the container's own; nothing of the home directory is mounted.
"""

from __future__ import annotations

from atoll.cli.wire import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOCKET = "/var/run/docker.sock"
LOGINS = "/run/secrets/docker"


def add_socket(client: Engine, request: dict[str, Any]) -> None:
    """Adds the mount, and where the logins will be, to a create request."""
    mount = {"Type": "bind", "Source": client.path, "Target": SOCKET}
    request["HostConfig"]["Mounts"] = [*(request["HostConfig"].get("Mounts") or []), mount]
    if not any(word.startswith("DOCKER_CONFIG=") for word in request["Env"]):
        request["Env"] = [*request["Env"], f"DOCKER_CONFIG={LOGINS}"]


def put_logins(client: Engine, identifier: str) -> None:
    """Copies the logins into a container that has not started."""
    import io
    import json
    import tarfile

    from atoll.cli.verbs.registry import read_config

    data = json.dumps({"auths": read_config().get("auths") or {}}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("run", "run/secrets", LOGINS[1:]):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        file = tarfile.TarInfo(f"{LOGINS[1:]}/config.json")
        file.size, file.mode = len(data), 0o600
        tar.addfile(file, io.BytesIO(data))
    client.request("PUT", f"/containers/{identifier}/archive", {"path": "/"}, data=buffer.getvalue()).close()
