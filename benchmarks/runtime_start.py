"""A container's start, beside runc with the same spec: start to exit of `true` with clean-up, fifty at once, exec, logs, the keeper's
memory.

    python benchmarks/runtime_start.py [--runs 50] [--directory /tmp]

Both get namespaces, cgroups, masked paths, Docker's seccomp policy and capabilities; Atoll also mounts an overlay, keeps a log and an
exit file. Rounds alternate, so that what else the machine does falls on both. Needs root and Debian's busybox-static; runc where it is
installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from atoll.config import Instance
from atoll.runtime import Overlay, Runtime, default_spec
from atoll.runtime.spec import exec_process

APPLETS = ("true", "sleep", "sh", "yes", "head")
LOG_BYTES = 200_000_000


class Bench:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.instance = Instance(home)
        self.runtime = Runtime(self.instance)
        self.root = home / "busybox"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (self.root / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", self.root / "bin" / "busybox")
        for applet in APPLETS:
            (self.root / "bin" / applet).symlink_to("busybox")
        self.count = 0

    def bundle(self, *args: str) -> str:
        self.count += 1
        directory = self.instance.containers / f"c{self.count}"
        for part in ("upper", "work"):
            (directory / part).mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(default_spec(args=args, env=["PATH=/bin"], hostname="bench")))
        return directory.name

    async def start(self, name: str) -> None:
        directory = self.instance.containers / name
        overlay = Overlay((self.root,), directory / "upper", directory / "work")
        await self.runtime.start(name, directory, rootfs=overlay, log=directory / "log")

    async def to_end(self, name: str) -> float:
        begin = time.perf_counter()
        await self.start(name)
        await self.runtime.wait(name)
        await self.runtime.delete(name)
        return time.perf_counter() - begin

    def runc_bundle(self) -> Path:
        spec = default_spec(args=["true"], env=["PATH=/bin"], hostname="bench", cgroups_path=f"/atoll-{self.instance.id}-runc/true")
        spec["ociVersion"] = "1.0.2"
        spec["root"]["path"] = str(self.root)
        directory = self.home / "runc"
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(spec))
        return directory

    def runc(self, bundle: Path) -> float:
        self.count += 1
        begin = time.perf_counter()
        subprocess.run(
            ["runc", "--root", str(self.home / "runc-state"), "run", "-b", str(bundle), f"r{self.count}"], check=True, capture_output=True
        )
        return time.perf_counter() - begin

    def keeper_memory(self) -> float:
        pid = (self.instance.run / "keeper.pid").read_text().strip()
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def milliseconds(times: list[float]) -> str:
    ordered = sorted(times)
    return (
        f"{statistics.median(ordered) * 1e3:6.1f} ms median, {ordered[0] * 1e3:.1f} best, {ordered[len(ordered) * 9 // 10] * 1e3:.1f} p90"
    )


async def measure(bench: Bench, runs: int) -> None:
    await bench.to_end(bench.bundle("true"))  # the seccomp policy is compiled and cached
    print(f"keeper memory               {bench.keeper_memory():6.1f} MiB")
    peer = bench.runc_bundle() if shutil.which("runc") else None
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(await bench.to_end(bench.bundle("true")))
        if peer:
            theirs.append(bench.runc(peer))
    print(f"start to exit of true       {milliseconds(ours)}")
    if peer:
        ratio = statistics.median(theirs) / statistics.median(ours)
        print(f"  runc run, same spec       {milliseconds(theirs)}: {ratio:.1f} times as long")
    names = [bench.bundle("true") for _ in range(50)]
    begin = time.perf_counter()
    await asyncio.gather(*map(bench.to_end, names))
    print(f"fifty at once               {(time.perf_counter() - begin) * 1e3:6.0f} ms")
    await measure_exec(bench, runs)
    name = bench.bundle("sh", "-c", f"yes 0123456789012345678901234567890123456789012345678901234567890123 | head -c {LOG_BYTES}")
    print(f"log of 64-byte lines        {LOG_BYTES / await bench.to_end(name) / 1e6:6.0f} MB/s")
    print(f"keeper memory at the end    {bench.keeper_memory():6.1f} MiB")


async def measure_exec(bench: Bench, runs: int) -> None:
    name = bench.bundle("sleep", "1000")
    await bench.start(name)
    spec = json.loads((bench.instance.containers / name / "config.json").read_text())
    times = []
    for number in range(runs):
        begin = time.perf_counter()
        await bench.runtime.exec(name, f"x{number}", exec_process(spec, args=["true"]))
        await bench.runtime.wait(name, f"x{number}")
        times.append(time.perf_counter() - begin)
    print(f"exec of true                {milliseconds(times)}")
    await bench.runtime.signal(name, 9)
    await bench.runtime.wait(name)
    await bench.runtime.delete(name)


async def main(runs: int, directory: str) -> None:
    home = Path(tempfile.mkdtemp(prefix="atb-", dir=directory))
    bench = Bench(home)
    try:
        await measure(bench, runs)
    finally:
        await bench.runtime.stop_keeper()
        shutil.rmtree(home)
        for left in Path("/sys/fs/cgroup").glob(f"*/atoll-{bench.instance.id}-runc"):  # noqa: ASYNC240
            left.rmdir()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--directory", default="/tmp", help="where the overlays' upper directories lie")
    options = parser.parse_args()
    asyncio.run(main(options.runs, options.directory))
