"""Profiles compiled by libseccomp and loaded into real processes."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

import pytest

from atoll.errors import InvalidInput, NotSupported
from atoll.kernel import prctl, seccomp
from atoll.runtime.seccomp import default_profile, digest, parse_profile, to_oci
from atoll.runtime.spec import DEFAULT_CAPABILITIES

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="uses x86-64 numbers")
MOUNT, CLONE3, PERSONALITY, UNSHARE, KEYCTL, FUTURE = 165, 435, 135, 272, 250, 999


def errno_of(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    return ctypes.get_errno() if result == -1 else 0


def test_the_default_policy(in_child):
    program = seccomp.compile_profile(to_oci(default_profile(), DEFAULT_CAPABILITIES))

    def confined():
        prctl.set_no_new_privs()
        seccomp.load(program)
        return [
            errno_of(MOUNT),
            errno_of(UNSHARE, 0x10000000),
            errno_of(KEYCTL, 0),
            errno_of(CLONE3, 0, 0),
            errno_of(FUTURE),
            errno_of(PERSONALITY, 0xFFFFFFFF),
            errno_of(PERSONALITY, 0x0400000),  # READ_IMPLIES_EXEC
            os.getpid() > 0,
        ]

    assert in_child(confined) == [errno.EPERM, errno.EPERM, errno.EPERM, errno.ENOSYS, errno.ENOSYS, 0, errno.EPERM, True]


def test_capabilities_widen_the_policy(in_child):
    program = seccomp.compile_profile(to_oci(default_profile(), [*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"]))

    def confined():
        prctl.set_no_new_privs()
        seccomp.load(program)
        return errno_of(MOUNT)

    assert in_child(confined) == errno.EFAULT  # it is asked, and finds no arguments


def test_a_profile_of_ones_own(in_child):
    profile = parse_profile(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}]}'
    )

    def confined():
        prctl.set_no_new_privs()
        seccomp.load(seccomp.compile_profile(to_oci(profile, ())))
        return errno_of(110)

    assert in_child(confined) == 71


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOPE"},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "x"}]}],
        },
    ],
)
def test_bad_profiles(profile):
    with pytest.raises(InvalidInput):
        seccomp.compile_profile(profile)


def test_a_listener_is_refused_by_name():
    rules = [{"names": ["mknod"], "action": "SCMP_ACT_NOTIFY"}]
    with pytest.raises(NotSupported, match="SCMP_ACT_NOTIFY"):
        seccomp.compile_profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_text_that_is_no_profile(text):
    with pytest.raises(InvalidInput, match="Decoding seccomp profile failed"):
        parse_profile(text)


def test_rules_by_architecture_kernel_and_capability():
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["b"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
            {"name": "d", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_TIME"]}},
            {"names": ["e"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_TIME"]}},
        ],
    }
    made = to_oci(profile, ["CAP_SYS_TIME"], machine="aarch64")
    assert [rule["names"] for rule in made["syscalls"]] == [["a"], ["d"]]
    assert made["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert digest(made) == digest(dict(reversed(made.items())))
