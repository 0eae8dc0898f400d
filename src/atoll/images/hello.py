"""The built-in hello-world: a static program of a few hundred bytes, assembled here for the machine's own processor.

`docker run hello-world` proves an installation, on machines that no registry answers to as well. The program is write(1, text) and exit(0)
behind an ELF header with one segment; it needs no compiler, no libc, and no file beside it. Its image is the same, bit for bit, on every
machine of one architecture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from atoll.errors import NotSupported
from atoll.images.model import Platform
from atoll.images.reference import Reference
from atoll.images.tar import Entry, Kind
from atoll.images.tarheader import TRAILER, encode, padding

NAME = "docker.io/library/hello-world"
PROGRAM = b"hello"
CREATED = "2026-11-23T00:00:00Z"  # when this program was last changed: the same everywhere, so the id is too
LOAD_ADDRESS = 0x400000
HEADERS = 64 + 56  # ELF header and one program header
_EM_X86_64, _EM_AARCH64 = 62, 183

TEXT = """
Hello from Atoll!
This message shows that your installation works. To print it, Atoll did all that
running a container takes:

 1. The client asked the engine, over its socket, for a container of "hello-world".
 2. No registry was needed: the engine made the image itself, a program of a few
    hundred bytes for this machine's processor ({architecture}).
 3. The engine unpacked the image and gave the container its own file system, process
    tree, network and limits.
 4. The program ran as the container's first process, and its output came back to you.

Something more ambitious: a base system from Debian's own signed packages, and a shell in it:
 $ atoll image bootstrap debian:bookworm
 $ docker run -it debian:bookworm bash

"""


def is_hello(reference: Reference) -> bool:
    """Whether a name asks for Docker Hub's hello-world."""
    return reference.name == NAME and reference.tag in (None, "latest", "linux") and reference.digest is None


def program(architecture: str) -> bytes:
    """The ELF executable. Raises NotSupported for processors nobody has written it for."""
    text = TEXT.format(architecture=architecture).encode()
    if architecture == "amd64":
        machine, code = _EM_X86_64, _amd64(len(text))
    elif architecture == "arm64":
        machine, code = _EM_AARCH64, _arm64(len(text))
    else:
        raise NotSupported(f"the built-in hello-world has no program for {architecture}, only for amd64 and arm64")
    size = HEADERS + len(code) + len(text)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, System V
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, LOAD_ADDRESS + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x10000)  # PT_LOAD, r-x
    return ident + header + segment + code + text


def layer_tar(architecture: str) -> Iterator[bytes]:
    data = program(architecture)
    yield encode(Entry(PROGRAM, Kind.FILE, 0o755, 0, 0, len(data), 0)) + data + padding(len(data)) + TRAILER


def config(platform: Platform) -> dict[str, object]:
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": CREATED,
        "config": {
            "Cmd": ["/" + PROGRAM.decode()],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "history": [
            {"created": CREATED, "created_by": "COPY hello / # assembled by Atoll"},
            {"created": CREATED, "created_by": 'CMD ["/hello"]', "empty_layer": True},
        ],
    }


def _amd64(length: int) -> bytes:
    """write(1, text, length); exit_group(0). The text follows the code, 33 bytes further on."""
    return (
        b"\xb8\x01\x00\x00\x00"  # mov eax, 1 (write)
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1
        b"\x48\x8d\x35" + struct.pack("<i", 16) +  # lea rsi, [rip + 16]: past what follows this instruction
        b"\xba" + struct.pack("<I", length) +  # mov edx, length
        b"\x0f\x05"  # syscall
        b"\x31\xff"  # xor edi, edi
        b"\xb8\xe7\x00\x00\x00"  # mov eax, 231 (exit_group)
        b"\x0f\x05"  # syscall
    )  # fmt: skip


def _arm64(length: int) -> bytes:
    """The same in eight instructions: x0 to x2 are the arguments, x8 the call's number."""
    words = [
        0xD2800020,  # mov x0, #1
        0x100000E1,  # adr x1, . + 28: past the eighth instruction
        0xD2800002 | length << 5,  # mov x2, #length
        0xD2800808,  # mov x8, #64 (write)
        0xD4000001,  # svc #0
        0xD2800000,  # mov x0, #0
        0xD2800BC8,  # mov x8, #94 (exit_group)
        0xD4000001,  # svc #0
    ]
    return struct.pack("<8I", *words)
