"""Unpacking and packing a layer beside GNU tar, and what compressing it costs.

    python benchmarks/image_layers.py [--files 4000] [--size 20000] [--runs 5]

The same gzip layer is unpacked by Atoll's extractor (which resolves every path inside the root and hashes what it reads) and by tar, in
turns; then packed again. Medians in seconds and MB/s of plain tar. The ratio to tar is what counts: creating files is the kernel's work,
and varies from run to run far more than ours.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from atoll.images.compression import compress, decompress
from atoll.images.extract import LAYER, extract_tar
from atoll.images.pack import pack_tree

WORDS = [os.urandom(12).hex().encode() for _ in range(2000)]  # compresses about as well as a system's files


def make_tree(root: Path, files: int, size: int) -> None:
    for number in range(files):
        directory = root / f"d{number % 97}" / f"e{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(b" ".join(random.choices(WORDS, k=size // 25)))


def timed(work: Callable[[Path], object], scratch: Path) -> float:
    target = Path(tempfile.mkdtemp(dir=scratch))
    start = time.perf_counter()
    work(target)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def gnu_pack(tree: Path, flags: str) -> int:
    """Through a pipe: into /dev/null GNU tar would not even read the files."""
    with subprocess.Popen(["tar", "-C", tree, flags, "-", "."], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return sum(len(chunk) for chunk in iter(lambda: process.stdout.read(1 << 18), b""))


def unpack(blob: Path, target: Path) -> None:
    digest = hashlib.sha256()

    def hashed(chunks):
        for chunk in chunks:
            digest.update(chunk)
            yield chunk

    root = os.open(target, os.O_RDONLY)
    with blob.open("rb") as file:
        extract_tar(hashed(decompress(iter(lambda: file.read(1 << 18), b""))), root, LAYER)
    os.close(root)


def pack(root: Path, squeeze: Callable = iter) -> int:
    fd = os.open(root, os.O_RDONLY)
    total = sum(len(chunk) for chunk in squeeze(pack_tree(fd, layer=True)))
    os.close(fd)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of a file")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        tree, blob = scratch / "tree", scratch / "layer.tar.gz"
        tree.mkdir()
        make_tree(tree, options.files, options.size)
        plain = subprocess.run(["tar", "-C", tree, "-cf", "-", "."], check=True, capture_output=True).stdout
        blob.write_bytes(gzip.compress(plain, 6))
        megabytes = len(plain) / 1e6
        works: dict[str, Callable[[Path], object]] = {
            "unpack, GNU tar": lambda target: subprocess.run(["tar", "-C", target, "-xzf", blob], check=True),
            "unpack, Atoll": lambda target: unpack(blob, target),
            "pack, GNU tar": lambda _: gnu_pack(tree, "-cf"),
            "pack, Atoll": lambda _: pack(tree),
            "pack and gzip, GNU tar": lambda _: gnu_pack(tree, "-czf"),
            "pack and gzip, Atoll": lambda _: pack(tree, compress),
        }
        times: dict[str, list[float]] = {label: [] for label in works}
        for _ in range(options.runs):
            for label, work in works.items():
                times[label].append(timed(work, scratch))
        sizes = f"by Atoll to {pack(tree, compress) / 1e6:.1f} MB, by gzip -6 to {blob.stat().st_size / 1e6:.1f} MB"
        print(f"{options.files} files, {megabytes:.0f} MB; compressed {sizes}")
        for label, seconds in times.items():
            print(f"{label:24} {statistics.median(seconds):7.3f} s {megabytes / statistics.median(seconds):7.0f} MB/s")
        ratio = statistics.median(times["unpack, Atoll"]) / statistics.median(times["unpack, GNU tar"])
        print(f"unpacking takes {ratio:.2f} times what GNU tar takes")


if __name__ == "__main__":
    main()
