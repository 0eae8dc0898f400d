"""Device rules for the unified hierarchy, which has no devices controller: an eBPF program on the group answers for each access.

The program is straight-line code: the rules from last to first, the first that matches decides, and nothing matching means no. It is
checked by the kernel when loaded, attached to the group, and goes away with it. Without it a container with CAP_MKNOD could make itself
the host's disk.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from typing import Any

from atoll.kernel import syscall

_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI = 2
_ACCESS = {"m": 1, "r": 2, "w": 4}
_TYPE = {"b": 1, "c": 2}
# struct bpf_cgroup_dev_ctx: access_type (access << 16 | type), major, minor.
_TYPE_REGISTER, _ACCESS_REGISTER, _MAJOR_REGISTER, _MINOR_REGISTER, _SCRATCH = 2, 3, 4, 5, 6
_JUMP_EQUAL, _JUMP_NOT_EQUAL = 0x16, 0x56


def restrict(directory: str, rules: list[Mapping[str, Any]]) -> None:
    """Attach the rules (OCI, in order, later ones win) to the cgroup. Raises SystemFailure."""
    program = _load(assemble(rules))
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attribute = struct.pack("IIIII", group, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI, 0)
        _bpf(_PROG_ATTACH, attribute, f"attach device rules to {directory}")
    finally:
        os.close(group)
        os.close(program)


def assemble(rules: list[Mapping[str, Any]]) -> bytes:
    """The program's instructions."""
    code = [
        _load_word(_TYPE_REGISTER, 0),
        _move(_ACCESS_REGISTER, _TYPE_REGISTER),
        _instruction(0x54, _TYPE_REGISTER, 0, 0, 0xFFFF),  # w &= 0xffff
        _instruction(0x74, _ACCESS_REGISTER, 0, 0, 16),  # w >>= 16
        _load_word(_MAJOR_REGISTER, 4),
        _load_word(_MINOR_REGISTER, 8),
    ]
    for rule in reversed(rules):
        block = _rule(rule)
        code.extend(block)
        if len(block) == 2:
            return b"".join(code)  # a rule for everything: what stands before it never counts
    code.extend(_answer(allow=False))
    return b"".join(code)


def _rule(rule: Mapping[str, Any]) -> list[bytes]:
    answer = _answer(allow=bool(rule.get("allow")))
    # (preparation, register, value, opcode of the jump to the next rule)
    tests: list[tuple[list[bytes], int, int, int]] = []
    kind = rule.get("type") or "a"
    if kind != "a":
        tests.append(([], _TYPE_REGISTER, _TYPE["c" if kind == "u" else kind], _JUMP_NOT_EQUAL))
        access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm") & set(_ACCESS))
        if access != sum(_ACCESS.values()):
            tests.append(_access_test(access, allow=bool(rule.get("allow"))))
        for register, key in ((_MAJOR_REGISTER, "major"), (_MINOR_REGISTER, "minor")):
            number = rule.get(key)
            if number is not None and number >= 0:
                tests.append(([], register, number, _JUMP_NOT_EQUAL))
    length = sum(len(preparation) + 1 for preparation, _, _, _ in tests)
    code: list[bytes] = []
    for preparation, register, value, jump in tests:
        code.extend(preparation)
        skip = length - len(code) - 1 + len(answer)
        code.append(_instruction(jump, register, 0, skip, value))
    return code + answer


def _access_test(access: int, *, allow: bool) -> tuple[list[bytes], int, int, int]:
    """An allowing rule holds when no bit asked for lies outside it; a denying one when any bit asked for lies inside."""
    bits = ~access & 0xFFFF if allow else access
    preparation = [_move(_SCRATCH, _ACCESS_REGISTER), _instruction(0x54, _SCRATCH, 0, 0, bits)]
    return preparation, _SCRATCH, 0, _JUMP_NOT_EQUAL if allow else _JUMP_EQUAL


def _answer(*, allow: bool) -> list[bytes]:
    return [_instruction(0xB7, 0, 0, 0, int(allow)), _instruction(0x95, 0, 0, 0, 0)]


def _load_word(register: int, offset: int) -> bytes:
    return _instruction(0x61, register, 1, offset, 0)


def _move(to: int, source: int) -> bytes:
    return _instruction(0xBC, to, source, 0, 0)


def _instruction(code: int, to: int, source: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, value)


def _load(code: bytes) -> int:
    text, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    attribute = struct.pack("IIQQIIQ", _PROG_TYPE_CGROUP_DEVICE, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence), 0, 0, 0)
    return _bpf(_PROG_LOAD, attribute, "load device rules")


def _bpf(command: int, attribute: bytes, what: str) -> int:
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    return syscall.call("bpf", command, buffer, len(attribute), what=what)
