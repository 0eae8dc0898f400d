"""A program that cannot be executed: what the message says beyond the kernel's two words for it."""

import contextlib
import platform
import struct

import pytest

from atoll.engine.containers.explain import lacking, unsuited

OTHER = "arm64" if platform.machine() == "x86_64" else "amd64"
OWN = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def elf(machine, loader=b""):
    """The head of a 64-bit little-endian program."""
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, int(bool(loader)), 0, 0, 0)
    )
    return header + (struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader), len(loader), 1) + loader if loader else b"")


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        (b"echo hello\n", 125, "a script begins with a line such as #!/bin/sh"),
        (b"", 125, "the file is empty"),
        (elf(183 if OTHER == "arm64" else 62), 125, f"the program is for {OTHER}, this machine is {OWN}: take an image for linux/{OWN}"),
        (b"#!/no/such/interpreter -x\n", 127, "its interpreter /no/such/interpreter is not in the image"),
        (b"#!/bin/sh\r\necho\r\n", 127, "its lines end in CR LF"),
        (elf(62 if OWN == "amd64" else 183, b"/lib/ld-elsewhere.so.1\0"), 127, "its loader /lib/ld-elsewhere.so.1 is not in the image"),
    ],
)
def test_run_says_why(engine, tmp_path, file, code, message):
    (tmp_path / "program").write_bytes(file)
    (tmp_path / "program").chmod(0o755)
    engine.docker("create", "--name", "odd", "busybox", "/program")
    engine.docker("cp", str(tmp_path / "program"), "odd:/program")
    done = engine.docker("start", "-a", "odd", check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert message in engine.docker("inspect", "-f", "{{.State.Error}}", "odd").stdout
    mounted = engine.docker("run", "--rm", "-v", f"{tmp_path}/program:/there:ro", "busybox", "/there", check=False)
    assert mounted.returncode == code
    assert message in mounted.stderr


@pytest.mark.parametrize("head", [b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 60, elf(62)[:40]])
def test_files_made_to_mislead(head):
    with contextlib.suppress(struct.error, IndexError):  # which add_reason takes for "cannot be told"
        unsuited(head)
    with contextlib.suppress(struct.error, IndexError):
        lacking(head)


@pytest.mark.parametrize("head", [b"#!\n", b"plain"])
def test_nothing_is_said_where_nothing_is_known(head):
    assert lacking(head) == ""
