"""`atoll registry serve` as a process of its own, spoken to by the standard library's HTTP client."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
READY_S = 30


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json["errors"][0]["code"]


class AtollRegistry:
    """With `home`, the registry that shares the content of the instance there."""

    def __init__(self, directory: Path, *flags: str, home: Path | None = None) -> None:
        self.root = (home or directory) / "registry"
        self.home = home
        self.flags = flags
        self.log = directory / "registry.log"
        self.process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "atoll", "registry", "serve", "--addr", f"127.0.0.1:{self.port}", *self.flags]
        environ = {**os.environ, "ATOLL_HOME": str(self.home)} if self.home else None
        if not self.home:
            command += ["--root", str(self.root)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("Registry at "), self.log.read_text()
        self.port = int(line.split(",")[0].rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(READY_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        """One request on a connection of its own; a body that is no bytes goes chunked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {}, **more)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    # what tests push -----------------------------------------------------------------------------------------------------------------
    def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        digest = digest_of(data, algorithm)
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, repository: str, reference: str, value: dict[str, Any] | bytes, kind: str | None = None) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = kind or (value["mediaType"] if isinstance(value, dict) else OCI_MANIFEST)
        return self.ask("PUT", f"/v2/{repository}/manifests/{reference}", body, {"Content-Type": kind})

    def push_image(self, repository: str, tag: str, *layers: bytes, **fields: Any) -> str:
        answer = self.push_manifest(repository, tag, self.image(repository, *layers, **fields))
        assert answer.status == 201, answer
        return answer.headers["Docker-Content-Digest"]

    def image(self, repository: str, *layers: bytes, config: bytes = b"{}", **fields: Any) -> dict[str, Any]:
        """A manifest whose blobs are pushed."""
        algorithm = fields.pop("algorithm", "sha256")
        for data in (config, *layers):
            self.push_blob(repository, data, algorithm)
        return {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(config, OCI_CONFIG, algorithm),
            "layers": [descriptor(layer, OCI_LAYER, algorithm) for layer in layers],
            **fields,
        }


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(data: bytes, kind: str, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data, algorithm), "size": len(data)}


def random_bytes(count: int = 512) -> bytes:
    return os.urandom(count)
