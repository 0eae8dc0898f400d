"""Unpacking and packing a large layer beside GNU tar.

    python benchmarks/image_layers.py [--entries 72000] [--size 1040] [--runs 3] [--place DIRECTORY]

A gzip layer of that many entries (files of a system's mix of sizes, a tenth of them directories and links; it packs to two fifths) is
unpacked as a pull does it: every path resolved inside the root, both digests computed. GNU tar unpacks the same, in turns; then both pack
it. Medians in seconds, in MB/s of plain tar, and CPU seconds, which a busy machine changes least. No tree is removed before the end:
ext4 searches long for an inode after many were freed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import random
import resource
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from isal import isal_zlib

from atoll.config import Instance
from atoll.images import ImageStore
from atoll.images.blobs import READ_SIZE
from atoll.images.compression import compress
from atoll.images.pack import pack_tree

TEXT = b" ".join(random.choices([os.urandom(6).hex().encode() for _ in range(1200)], k=600_000))
NOISE = 0.16  # of the content does not compress


def content(size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        length = min(size - len(out), random.choice((2000, 4000, 9000)))
        start = random.randrange(len(TEXT) - length)
        out += os.urandom(length) if random.random() < NOISE else TEXT[start : start + length]
    return bytes(out)


class Gzip(io.RawIOBase):
    """A gzip file that counts and hashes what goes in."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._packer = isal_zlib.compressobj(3, isal_zlib.DEFLATED, 31)
        self.plain = hashlib.sha256()
        self.size = 0

    def write(self, data) -> int:
        self.plain.update(data)
        self.size += len(data)
        self._file.write(self._packer.compress(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.write(self._packer.flush())
            self._file.close()
        super().close()


def make_layer(path: Path, entries: int, megabytes: int) -> Gzip:
    """Directories of a dozen members: files with log-normal sizes, symlinks, now and then a hard link."""
    random.seed(7)
    out = Gzip(path)
    scale = megabytes * 1e6 / (entries * 0.82)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 20) as tar:

        def add(name: str, kind: bytes, data: bytes = b"", link: str = "", mode: int = 0o644) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.size, info.linkname = kind, mode, len(data), link
            info.mtime = 1_700_000_000 + random.randrange(10**7)
            tar.addfile(info, io.BytesIO(data) if data else None)

        made, directories = 0, ["usr"]
        while made < entries:
            parent = random.choice(directories[-200:])
            directory = f"{'usr' if parent.count('/') > 8 else parent}/directory{made}"
            directories.append(directory)
            add(directory, tarfile.DIRTYPE, mode=0o755)
            for number in range(random.randrange(2, 22)):
                kind = random.random() if number else 1
                if kind < 0.09:
                    add(f"{directory}/link{number}", tarfile.SYMTYPE, link=f"file{number}", mode=0o777)
                elif kind < 0.1:
                    add(f"{directory}/hard{number}", tarfile.LNKTYPE, link=f"{directory}/file0")
                else:
                    size = int(random.lognormvariate(0, 1.75) * scale / 4.6)  # 4.6: the mean of that distribution
                    add(f"{directory}/file{number}", tarfile.REGTYPE, content(min(size, 20 << 20)), mode=random.choice((0o644, 0o755)))
                made += 1
            made += 1
    out.close()
    return out


def pack(root: Path, squeeze: Callable[[Iterator[bytes]], Iterator[bytes]] = iter) -> None:
    fd = os.open(root, os.O_RDONLY)
    for _ in squeeze(pack_tree(fd, layer=True)):
        pass
    os.close(fd)


def gnu_pack(tree: Path, flags: str) -> None:
    """Through a pipe: into /dev/null GNU tar would not even read the files."""
    with subprocess.Popen(["tar", "-C", tree, flags, "-", "."], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in iter(lambda: process.stdout.read(1 << 18), b""):
            pass


def cpu() -> float:
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=72_000)
    parser.add_argument("--size", type=int, default=1040, help="MB of the plain tar, about")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where to unpack: a fresh file system tells most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atb-", dir=options.place) as name:
        scratch = Path(name)
        blob = scratch / "layer.tar.gz"
        layer = make_layer(blob, options.entries, options.size)
        megabytes = layer.size / 1e6
        print(f"{options.entries} entries, {megabytes:.0f} MB, as gzip {blob.stat().st_size / 1e6:.0f} MB")
        trees: list[Path] = []
        digest = hashlib.sha256(blob.read_bytes()).digest()

        def chunks(packed: Any) -> Iterator[bytes]:
            with blob.open("rb", buffering=0) as file:
                while data := file.read(READ_SIZE):
                    packed.update(data)
                    yield data

        def unpack() -> None:
            store = ImageStore(Instance(Path(tempfile.mkdtemp(dir=scratch))))
            store.open()
            packed = hashlib.sha256()
            trees.append(store.snapshots.unpack_blob_now(chunks(packed), None, f"sha256:{layer.plain.hexdigest()}").directory)
            assert packed.digest() == digest
            store.close()

        works: dict[str, Callable[[], object]] = {
            "unpack, GNU tar": lambda: subprocess.run(["tar", "-C", tempfile.mkdtemp(dir=scratch), "-xzf", blob], check=True),
            "unpack, Atoll": unpack,
            "pack, GNU tar": lambda: gnu_pack(trees[0], "-cf"),
            "pack, Atoll": lambda: pack(trees[0]),
            "pack and gzip, Atoll": lambda: pack(trees[0], compress),
        }
        times: dict[str, list[tuple[float, float]]] = {label: [] for label in works}
        for _ in range(options.runs):
            for label, work in works.items():
                start, used = time.perf_counter(), cpu()
                work()
                times[label].append((time.perf_counter() - start, cpu() - used))
        for label, pairs in times.items():
            seconds, used = (statistics.median(values) for values in zip(*pairs, strict=True))
            print(f"{label:24} {seconds:7.2f} s {megabytes / seconds:6.0f} MB/s {used:7.2f} s CPU")


if __name__ == "__main__":
    main()
