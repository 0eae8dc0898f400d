"""Debian's etcd-server on loopback, for as long as a test module needs it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ETCD = shutil.which("etcd")
READY_S = 20.0


class Etcd:
    """An etcd of one member; `location` is what a store is opened with.

    `serving` (a directory with ca.pem, cert.pem and key.pem) has it speak TLS, to those alone who have a certificate of that authority,
    as the one in the directory `client`.
    """

    def __init__(self, home: Path, serving: Path | None = None, client: Path | None = None) -> None:
        port, peer = _free_ports(2)
        self.url, peers = f"http{'s' if serving else ''}://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        self.location = f"etcd{'s' if serving else ''}://127.0.0.1:{port}"
        self._context: ssl.SSLContext | None = None
        self._credentials: list[str] = []
        self._command = [
            *(ETCD or "etcd", "--name", "m", "--data-dir", str(home / "etcd")),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"m={peers}"),
            *("--log-level", "error"),
        ]
        if serving is not None and client is not None:
            files = (serving / "cert.pem", serving / "key.pem", serving / "ca.pem")
            named = zip(("--cert-file", "--key-file", "--trusted-ca-file"), map(str, files), strict=True)
            self._command += [*(word for pair in named for word in pair), "--client-cert-auth"]
            self._context = ssl.create_default_context(cafile=client / "ca.pem")
            self._context.load_cert_chain(client / "cert.pem", client / "key.pem")
            self._credentials = ["--cacert", f"{client}/ca.pem", "--cert", f"{client}/cert.pem", "--key", f"{client}/key.pem"]
        self._log = home / "etcd.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=1, context=self._context) as answer:
                if b"true" in answer.read():
                    return
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def ctl(self, *args: str) -> str:
        """etcdctl's output."""
        command = ["etcdctl", "--endpoints", self.url, *self._credentials, *args]
        return subprocess.run(command, env={"ETCDCTL_API": "3"}, capture_output=True, text=True, check=True, timeout=20).stdout


@contextlib.contextmanager
def etcd(home: Path, serving: Path | None = None, client: Path | None = None) -> Iterator[Etcd]:
    server = Etcd(home, serving, client)
    try:
        yield server
    finally:
        server.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
