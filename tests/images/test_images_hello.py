"""The built-in hello-world runs, is the same each time, and is a proper ELF for both processors."""

from __future__ import annotations

import asyncio
import struct
import subprocess

import pytest

from atoll.errors import NotSupported
from atoll.images import ImageStore, Platform, parse
from atoll.images.hello import is_hello, program


def test_it_runs_and_says_so(store: ImageStore):
    image = asyncio.run(store.ensure_builtin("hello-world"))
    assert image is not None
    assert image.size < 1000
    ran = subprocess.run([image.layers[0].directory / "hello"], check=True, capture_output=True, text=True)
    assert ran.stdout.startswith("\nHello from Atoll!\nThis message shows that your installation works.")
    again = asyncio.run(store.ensure_builtin("docker.io/library/hello-world:latest"))
    assert again is not None
    assert again.id == image.id
    assert asyncio.run(store.ensure_builtin("debian")) is None


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_program_is_whole(architecture: str, machine: int):
    data = program(architecture)
    assert data[:4] == b"\x7fELF"
    assert struct.unpack_from("<HH", data, 16) == (2, machine)
    kind, flags, offset, _, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", data, 64)
    assert (kind, flags, offset, size, memory) == (1, 5, 0, len(data), len(data))
    assert architecture.encode() in data


def test_other_processors_are_told():
    with pytest.raises(NotSupported, match="no program for mips"):
        program("mips")


def test_only_docker_hubs_name_means_it():
    assert is_hello(parse("hello-world"))
    assert is_hello(parse("library/hello-world:latest"))
    assert not is_hello(parse("ghcr.io/hello-world"))
    assert not is_hello(parse("me/hello-world"))
    assert Platform("linux", "amd64")
