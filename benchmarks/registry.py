"""Pushing to and pulling from `atoll registry serve` beside Debian's docker-registry.

    python benchmarks/registry.py [--size 300] [--layers 3] [--runs 5]

The same image of random layers (MB in all) goes to each registry and back by skopeo, on loopback, in turns, each push into an empty
registry; then the bare transfer: one blob by one PUT and one GET, from a client that does nothing with it. Medians, the server's CPU time,
its peak memory, and the ratio to docker-registry.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MB = 1_000_000
OCI = "application/vnd.oci.image"
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A registry process over a directory of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        if name == "atoll":
            command = [sys.executable, "-m", "atoll", "registry", "serve", "--addr", self.address, "--root", str(directory)]
        else:
            config = directory / "config.yml"
            config.write_text(
                "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
                f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\nhttp: {{addr: '{self.address}'}}\n"
            )
            command = ["docker-registry", "serve", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{name} did not start") from None
                time.sleep(0.02)
        self.begin = self.cpu()

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MB

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.directory)


def make_layout(directory: Path, size: int, layers: int) -> None:
    """An OCI layout of one image, whose layers no client will want to compress."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    tars = [put(os.urandom(size * MB // layers), f"{OCI}.layer.v1.tar+gzip") for _ in range(layers)]
    rootfs = {"type": "layers", "diff_ids": [tar["digest"] for tar in tars]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), f"{OCI}.config.v1+json")
    kind = f"{OCI}.manifest.v1+json"
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": tars}).encode(), kind)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def skopeo(source: str, target: str) -> float:
    flags = ["--insecure-policy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]
    start = time.perf_counter()
    subprocess.run(["skopeo", "copy", *flags, source, target], check=True)
    return time.perf_counter() - start


def put_blob(server: Server, data: bytes, digest: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.blocksize = 1 << 20
    start = time.perf_counter()
    connection.request("POST", "/v2/bare/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    place = response.headers["Location"].removeprefix(f"http://{server.address}")
    connection.request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data)
    response = connection.getresponse()
    response.read()
    seconds = time.perf_counter() - start
    assert response.status == 201, response.status
    connection.close()
    return seconds


def get_blob(server: Server, digest: str, size: int) -> float:
    buffer = bytearray(1 << 20)
    start = time.perf_counter()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET /v2/bare/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        total = 0
        while count := connection.recv_into(buffer):
            total += count
    assert total > size
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300, help="MB of the image")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    names = ["atoll", *(["docker-registry"] if shutil.which("docker-registry") else [])]
    seen: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        layout = Path(scratch) / "layout"
        make_layout(layout, options.size, options.layers)
        data = os.urandom(options.size * MB)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for _ in range(options.runs):
            for name in names:
                os.sync()  # each begins with a quiet disk
                server = Server(name, Path(scratch) / "server")
                image = f"docker://{server.address}/bench/image:1"
                figures = {
                    "push by skopeo, s": skopeo(f"oci:{layout}:image", image),
                    "pull by skopeo, s": skopeo(image, f"dir:{scratch}/pulled"),
                    "PUT of one blob, s": put_blob(server, data, digest),
                    "GET of one blob, s": get_blob(server, digest, len(data)),
                    "CPU of the server, s": server.cpu() - server.begin,
                    "peak memory, MB": server.peak(),
                }
                shutil.rmtree(f"{scratch}/pulled")
                server.stop()
                for what, figure in figures.items():
                    seen.setdefault((what, name), []).append(figure)
    print(f"{options.size} MB in {options.layers} layers, {options.runs} runs, medians")
    for what in dict.fromkeys(what for what, _ in seen):
        medians = {name: statistics.median(seen[what, name]) for name in names}
        ratio = f"   {medians['atoll'] / medians[names[-1]]:5.2f} times" if len(names) > 1 else ""
        print(f"{what:22}" + "".join(f"{name:>17} {median:8.2f}" for name, median in medians.items()) + ratio)


if __name__ == "__main__":
    main()
