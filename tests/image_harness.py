"""Small roots as tars, images made of them, and a registry nobody here wrote."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from atoll.images import Image, ImageStore


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """A tar of files by content, or of ready-made members, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o644
                archive.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def member(name: str, kind: bytes, link: str = "", **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for key, value in fields.items():
        setattr(info, key, value)
    return info


async def stream(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def collected(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def make_image(store: ImageStore, tag: str, *layers: bytes, **config: Any) -> Image:
    """An image of the given layer tars."""
    made = []
    for tar in layers:
        made.append(await store.snapshots.unpack(iter([tar]), made[-1].chain_id if made else None))
    return store.create_image({"created": "2026-01-02T03:04:05Z", "config": config}, made, tags=[tag])


class Registry:
    """Debian's docker-registry on a port of its own."""

    def __init__(self, directory: Path, auth: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.data = directory / "data"
        config = directory / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.data}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{self.address}'}}\n{auth}"
        )
        self._log = (directory / "log").open("wb")
        self._process = subprocess.Popen(["/usr/bin/docker-registry", "serve", config], stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < deadline, "docker-registry did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """asyncio.run for a test's inner coroutine function, used as a decorator."""
    return asyncio.run(work())  # type: ignore[arg-type]
