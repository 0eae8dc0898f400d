"""The figures of this project, measured beside the peers that are installed: `make bench`, or

    python -m benchmarks [--rounds 3] [--runs 10] [--only containers,cluster,api] [--no-peers] [--json FILE]

As root, on Debian with busybox-static. Docker (docker.io, and that of `packaging/fetch-docker --engine`) and podman with crun take part
where they are there, each in namespaces of its own; engines take turns. Everything lies in one directory below /tmp, and all of it is gone
in the end, which is checked. The exit status is 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks import apiserver, cluster
from benchmarks.containers import Containers, milliseconds
from benchmarks.engines import IMAGE, Atoll, Engine, installed
from benchmarks.figures import ATOLL, Results

from engine_harness import busybox_tar
from leaks import left_behind

PARTS = ("containers", "cluster", "api")


@contextlib.contextmanager
def home(top: Path, name: str) -> Iterator[Path]:
    """A directory of an engine's own, which must hold no mount when it is left."""
    directory = top / name
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@contextlib.contextmanager
def atoll(top: Path, name: str) -> Iterator[tuple[Atoll, float]]:
    """A running instance and the milliseconds its start took; leaving it asserts that nothing of it is left on the machine."""
    with home(top, name) as directory:
        begin = time.perf_counter()
        engine = Atoll(directory)
        took = milliseconds(begin)
        try:
            engine.run("import", "-", IMAGE, stdin=busybox_tar())
            yield engine, took
        finally:
            engine.run("cluster", "delete", check=False)
            engine.close()
        left = left_behind(engine.instance)
        assert not left, f"left behind: {left}"


def containers(top: Path, results: Results, options: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        engines: list[Engine] = [stack.enter_context(atoll(top, "a"))[0]]
        for peer in installed() if options.peers else []:
            engine = peer(stack.enter_context(home(top, peer.name)))
            stack.callback(engine.close)
            engine.run("import", "-", IMAGE, stdin=busybox_tar())
            engines.append(engine)
        results.names.update({engine.name: f"{engine.name} {engine.version().partition('+')[0]}" for engine in engines})
        measures = Containers(engines, results, options.runs)
        for number in range(options.rounds):
            say(f"containers, round {number + 1} of {options.rounds}: {', '.join(results.names.values())}")
            measures.measure()


def clusters(top: Path, results: Results, options: argparse.Namespace) -> None:
    for number in range(options.rounds):
        say(f"cluster, round {number + 1} of {options.rounds}")
        with atoll(top, f"c{number}") as (engine, engine_start_ms):
            results.names.setdefault(ATOLL, ATOLL)
            cluster.start(engine, results, engine_start_ms)
            cluster.pods(engine, results, options.runs)
            cluster.idle(engine, results)


def api(top: Path, results: Results, options: argparse.Namespace) -> None:
    results.names.setdefault(ATOLL, ATOLL)
    for number in range(options.rounds):
        say(f"API server, round {number + 1} of {options.rounds}")
        with home(top, f"k{number}") as directory:
            apiserver.measure(directory, results)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}; load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="several short ones, since the machine may have other work")
    parser.add_argument("--runs", type=int, default=10, help="of each command in a round")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--json", type=Path, help="keep all samples in this file")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("must run as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what has been started is taken away then, too
    results = Results()
    # Short, since unix socket paths end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="atb-", dir="/tmp") as name:
        for part in options.only.split(","):
            {"containers": containers, "cluster": clusters, "api": api}[part](Path(name), results, options)
    print(f"{time.strftime('%F')}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; medians")
    print(f"of {options.rounds} rounds; in brackets Atoll's share of the peer's figure\n")
    print(results.table())
    if options.json:
        options.json.write_text(json.dumps(results.samples, indent=1))
    missed = results.missed()
    if missed:
        print(f"\nmissed: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
