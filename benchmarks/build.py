"""Builds: ten steps cold and cached, and COPY of 300 MB, beside the peers that are installed.

    python -m benchmarks.build [--runs 5] [--size 300] [--no-peers]

As root, with a docker CLI and busybox-static. Docker and Atoll are driven by the same docker CLI with its classic builder, podman by its
own; engines take turns. Medians in milliseconds, in brackets Atoll's share of the peer's; "without the CLI" is the whole answer of
POST /build.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import os
import socket
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.__main__ import atoll, home
from benchmarks.engines import IMAGE, Docker, Engine, docker_client, installed
from benchmarks.figures import ATOLL

from engine_harness import busybox_tar

TEN_STEPS = f"""FROM {IMAGE}
RUN echo 1 > /one
RUN echo 2 > /two
ENV A=1
WORKDIR /work
COPY small /work/
RUN cat small > three
LABEL a=b
RUN rm three
CMD ["sh"]
"""
COPY = f"FROM {IMAGE}\nCOPY large /large\n"


class Classic(Engine):
    """Another engine through the docker CLI's classic builder."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.socket, self.command = engine.name, engine.socket, [docker_client()]
        self.environ = {**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "DOCKER_BUILDKIT": "0"}


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000


def directory(top: Path, name: str, dockerfile: str, files: dict[str, int]) -> Path:
    place = top / name
    place.mkdir()
    (place / "Dockerfile").write_text(dockerfile)
    for file, size in files.items():
        (place / file).write_bytes(os.urandom(size))
    return place


def posted(path: Path, place: Path) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        tar.add(place, ".")
    with contextlib.closing(http.client.HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("POST", "/v1.44/build?t=bench", body.getvalue(), {"Content-Type": "application/x-tar"})
        answer = connection.getresponse().read()
    assert b"Successfully" in answer, answer
    return answer


def measure(engines: list[Engine], top: Path, options: argparse.Namespace) -> dict[tuple[str, str], list[float]]:
    ten = directory(top, "ten", TEN_STEPS, {"small": 100})
    large = directory(top, "large", COPY, {"large": options.size << 20})
    rows: dict[tuple[str, str], list[float]] = {}
    kinds = {
        "10 steps, cold": ["--no-cache", str(ten)],
        "10 steps, cached": [str(ten)],
        f"COPY of {options.size} MB": ["--no-cache", str(large)],
    }
    for _ in range(options.runs):
        for what, words in kinds.items():
            for engine in engines:
                rows.setdefault((what, engine.name), []).append(timed(partial(engine.run, "build", "-q", "-t", "bench", *words)))
        rows.setdefault(("10 steps, cached, without the CLI", ATOLL), []).append(timed(lambda: posted(engines[0].socket, ten)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--size", type=int, default=300, help="MB of the file that is copied")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atb-", dir="/tmp") as name, contextlib.ExitStack() as stack:
        top = Path(name)
        engines: list[Engine] = [Classic(stack.enter_context(atoll(top, "a"))[0])]
        for peer in installed() if options.peers else []:
            engine = peer(stack.enter_context(home(top, peer.name)))
            stack.callback(engine.close)
            engine.run("import", "-", IMAGE, stdin=busybox_tar())
            engines.append(Classic(engine) if isinstance(engine, Docker) else engine)
        rows = measure(engines, top, options)
        names = {engine.name: f"{engine.name} {engine.version()}" for engine in engines}
    for (what, name), times in rows.items():
        middle = statistics.median(times)
        share = "" if name == ATOLL else f"  ({statistics.median(rows[what, ATOLL]) / middle:.2f} x)"
        print(f"{what:36} {names[name]:24} {middle:8.1f}{share}")


if __name__ == "__main__":
    main()
