"""Pull, save, load and push of an image of 300 MB, beside the Docker that is installed.

    python -m benchmarks.transfer [--size 300] [--layers 3] [--runs 3] [--no-peers]

As root, with a docker CLI, docker-registry and skopeo. All engines are driven by the same docker CLI, in turns; each has registries of its
own beside it, a full one to pull from and an empty one to push to. Medians in seconds, in brackets Atoll's share of the peer's.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.__main__ import atoll, home
from benchmarks.build import Classic
from benchmarks.engines import Docker
from benchmarks.figures import ATOLL

MB = 1_000_000
OCI = "application/vnd.oci.image"
READY_S = 20.0


def make_layout(directory: Path, size: int, layers: int) -> None:
    """An OCI layout of one image whose content does not compress."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, kind: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    tars = []
    for number in range(layers):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for part in range(50):
                info = tarfile.TarInfo(f"layer{number}/file{part}")
                info.size = size * MB // layers // 50
                tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        tars.append(out.getvalue())
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in tars]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode(), f"{OCI}.config.v1+json")
    packed = [put(gzip.compress(tar, 1), f"{OCI}.layer.v1.tar+gzip") for tar in tars]
    kind = f"{OCI}.manifest.v1+json"
    manifest = put(json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": packed}).encode(), kind)
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@contextlib.contextmanager
def registry(top: Path, enter: list[str]) -> Iterator[str]:
    """docker-registry in the network of an engine; its address there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    directory = Path(tempfile.mkdtemp(dir=top))
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with subprocess.Popen([*enter, "docker-registry", "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + READY_S
            probe = [*enter, sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {address.split(':')[1]}))"]
            while subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode:
                assert time.monotonic() < end, "docker-registry did not start"
            yield address
        finally:
            process.kill()
    shutil.rmtree(directory)


def timed(engine: Classic, *words: str) -> float:
    start = time.perf_counter()
    engine.run(*words)
    return time.perf_counter() - start


def measure(engine: Classic, enter: list[str], layout: Path, top: Path, rows: dict[tuple[str, str], list[float]]) -> None:
    skopeo = [*enter, "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:image"]
    archive = top / f"{engine.name}.tar"
    with registry(top, enter) as full, registry(top, enter) as empty:
        subprocess.run([*skopeo, f"docker://{full}/image:1"], check=True)
        os.sync()  # each begins with a quiet disk
        seconds = {"pull": timed(engine, "pull", "-q", f"{full}/image:1")}
        engine.run("tag", f"{full}/image:1", f"{empty}/image:1")
        seconds["save"] = timed(engine, "save", "-o", str(archive), f"{empty}/image:1")
        engine.run("rmi", f"{full}/image:1", f"{empty}/image:1")
        os.sync()
        seconds["load"] = timed(engine, "load", "-q", "-i", str(archive))
        seconds["push"] = timed(engine, "push", "-q", f"{empty}/image:1")
        engine.run("rmi", f"{empty}/image:1")
    archive.unlink()
    for what, figure in seconds.items():
        rows.setdefault((what, engine.name), []).append(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300, help="MB of the image")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    options = parser.parse_args()
    rows: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="atb-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        top = Path(name)
        engines = [(Classic(stack.enter_context(atoll(top, "a"))[0]), [])]
        if options.peers and Docker.is_there():
            docker = Docker(stack.enter_context(home(top, "docker")))
            stack.callback(docker.close)
            engines.append((Classic(docker), docker.enter))
        for _ in range(options.runs):
            layout = Path(tempfile.mkdtemp(dir=top))
            make_layout(layout, options.size, options.layers)
            for engine, enter in engines:
                measure(engine, enter, layout, top, rows)
            shutil.rmtree(layout)
        names = {engine.name: f"{engine.name} {engine.version()}" for engine, _ in engines}
    print(f"{options.size} MB in {options.layers} layers, {options.runs} runs, medians")
    for (what, name), times in rows.items():
        middle = statistics.median(times)
        share = "" if name == ATOLL else f"  ({statistics.median(rows[what, ATOLL]) / middle:.2f} x)"
        print(f"{what:8} {names[name]:24} {middle:8.2f} s{share}")


if __name__ == "__main__":
    main()
