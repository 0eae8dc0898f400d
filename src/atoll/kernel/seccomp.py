"""Seccomp filters: an OCI profile compiled to BPF by libseccomp, and BPF given to the kernel.

Compiling Docker's profile costs 22 ms, loading the result 0.3: so the bytes are kept. Optimisation level 2 makes libseccomp build a
binary tree, which loads and runs about three times faster than its list.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping
from typing import Any, Final

from atoll.errors import InvalidInput, NotSupported, SystemFailure
from atoll.kernel import syscall

_ACTIONS: Final = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS: Final = {
    name: number
    for number, name in enumerate(
        ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"), start=1
    )
}
_FLAGS: Final = {"SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
_ATTRIBUTE_OPTIMIZE: Final = 8
_RULE_EXISTS: Final = -errno.EEXIST
_SET_MODE_FILTER: Final = 1
# AUDIT_ARCH_* of the kernel's linux/audit.h.
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
_X32_BIT: Final = 0x40000000


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("datum_a", ctypes.c_uint64), ("datum_b", ctypes.c_uint64))


class _Program(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """An OCI `linux.seccomp` as BPF: an array of struct sock_filter. Raises InvalidInput, NotSupported (no libseccomp)."""
    library = _library()
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = library.seccomp_init(ctypes.c_uint32(default))
    if not context:
        raise InvalidInput(f"seccomp: bad default action {profile['defaultAction']}")
    handle = ctypes.c_void_p(context)
    try:
        for name in profile.get("architectures") or ():
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            if not token:
                raise InvalidInput(f"seccomp: unknown architecture {name}")
            _check(library.seccomp_arch_add(handle, ctypes.c_uint32(token)), f"add architecture {name}", allowed=_RULE_EXISTS)
        newest = 0
        for rule in profile.get("syscalls") or ():
            newest = max(newest, _add_rule(library, handle, rule, default))
        # Old versions know no level 2; they compile the slower list.
        library.seccomp_attr_set(handle, ctypes.c_int(_ATTRIBUTE_OPTIMIZE), ctypes.c_uint32(2))
        program = _export(library, handle)
    finally:
        library.seccomp_release(handle)
    if default == _ACTIONS["SCMP_ACT_ERRNO"] | errno.EPERM and newest:
        return _unknown_is_enosys(newest) + program
    return program


def load(program: bytes, flags: int = 0) -> None:
    """Confine the calling thread, for good. Needs no_new_privs or CAP_SYS_ADMIN. Raises SystemFailure."""
    argument = _Program(len(program) // 8, program)
    syscall.call("seccomp", _SET_MODE_FILTER, flags, ctypes.byref(argument), what="load the seccomp filter")


def filter_flags(names: list[str]) -> int:
    """OCI `linux.seccomp.flags` as seccomp(2)'s. Raises InvalidInput."""
    flags = 0
    for name in names:
        if name not in _FLAGS:
            raise InvalidInput(f"seccomp: unknown flag {name}")
        flags |= _FLAGS[name]
    return flags


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise NotSupported("seccomp needs libseccomp: install libseccomp2, or run with --security-opt seccomp=unconfined") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    return library


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise NotSupported("seccomp: SCMP_ACT_NOTIFY is not supported: no listener is told of a container's calls")
    if name not in _ACTIONS:
        raise InvalidInput(f"seccomp: unknown action {name}: use one of {', '.join(_ACTIONS)}")
    if name == "SCMP_ACT_ERRNO":
        return _ACTIONS[name] | (errno.EPERM if number is None else number)
    return _ACTIONS[name] | (number or 0 if name == "SCMP_ACT_TRACE" else 0)


def _add_rule(library: ctypes.CDLL, handle: ctypes.c_void_p, rule: Mapping[str, Any], default: int) -> int:
    """Returns the highest number of a system call that the rule names."""
    action = _action(rule["action"], rule.get("errnoRet"))
    newest = 0
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue  # of another kernel or architecture
        newest = max(newest, number)
        if action == default:
            continue  # libseccomp refuses rules that say nothing
        for comparisons in _comparisons(rule.get("args") or ()):
            array = (_Comparison * len(comparisons))(*comparisons)
            result = library.seccomp_rule_add_array(handle, ctypes.c_uint32(action), number, len(comparisons), array)
            _check(result, f"add a rule for {name}", allowed=_RULE_EXISTS)
    return newest


def _comparisons(arguments: Any) -> list[list[_Comparison]]:
    """All conditions in one rule; libseccomp allows each argument once, so a second condition on one makes alternatives (as in runc)."""
    made = []
    for argument in arguments:
        if argument["op"] not in _OPERATORS:
            raise InvalidInput(f"seccomp: unknown operator {argument['op']}")
        first, second = int(argument["value"]), int(argument.get("valueTwo") or 0)
        made.append(_Comparison(int(argument["index"]), _OPERATORS[argument["op"]], first, second))
    if len({comparison.arg for comparison in made}) == len(made):
        return [made]
    return [[comparison] for comparison in made]


def _export(library: ctypes.CDLL, handle: ctypes.c_void_p) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(handle, fd), "export the filter")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _unknown_is_enosys(newest: int) -> bytes:
    """A prologue: system calls newer than any the profile's author named answer ENOSYS, so that programs fall back (as runc does).

    EPERM would tell them that the call exists and is forbidden, and break each new libc.
    """
    audit = _AUDIT_ARCH.get(platform.machine())
    if audit is None:
        return b""
    load_word, jump_equal, jump_greater, jump_or_equal, answer = 0x20, 0x15, 0x25, 0x35, 0x06
    instructions = (
        (load_word, 0, 0, 4),  # seccomp_data.arch
        (jump_equal, 0, 4, audit),
        (load_word, 0, 0, 0),  # seccomp_data.nr
        (jump_greater, 0, 2, newest),
        (jump_or_equal, 1, 0, _X32_BIT),
        (answer, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
    )
    return b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)


def _check(result: int, what: str, allowed: int = 0) -> None:
    if result not in (0, allowed):
        raise SystemFailure(f"seccomp: {what}", -result)
