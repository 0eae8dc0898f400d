"""Debian and Ubuntu base images from their own packages, for machines no registry answers to.

mmdebstrap installs the suite (apt checks the archive's signature with the distribution's keyring) and gives a tar, which is unpacked, given
the few settings a container's apt and dpkg want, and packed our own way. The time of everything in it is the archive's, not the clock's, so
the same packages give the same image.
"""

from __future__ import annotations

import asyncio
import email.utils
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from atoll.errors import InvalidInput, NotSupported, Unavailable
from atoll.http import Client
from atoll.http.errors import BodyTooLarge, Disconnected
from atoll.http.proxy import proxy_for
from atoll.images.aptsources import DISTRIBUTIONS, Distribution, Source, sources
from atoll.images.model import Layer, Progress
from atoll.images.reference import Reference
from atoll.images.snapshots import Snapshots
from atoll.images.treewalk import remove_in_root
from atoll.kernel.openat2 import open_in_root
from atoll.units import timestamp_seconds

TOOL = "mmdebstrap"
VARIANTS = ("essential", "apt", "minbase", "required", "important", "buildd", "standard")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TIMEOUT_S = 1800.0  # a slow mirror is slow, a dead one is noticed by apt long before
RELEASE_TIMEOUT_S = 20.0
RELEASE_MAX = 1 << 20  # bytes
STOP_S = 15.0  # mmdebstrap unmounts and removes its directory when told to stop
LOG_LINES = 12
PIECE = 1 << 20

# debian:*-slim leaves out what a container rarely reads; licences stay.
SLIM = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/linda/*",
)

_CLEAN = "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"
FILES = {
    # No init runs in a container: packages must not try to start services (invoke-rc.d(8)).
    "usr/sbin/policy-rc.d": (0o755, "#!/bin/sh\nexit 101\n"),
    # A layer is thrown away whole when a build fails; syncing each file of each package buys nothing.
    "etc/dpkg/dpkg.cfg.d/container": (0o644, "force-unsafe-io\n"),
    # Downloaded packages and indexes would stay in the layer of every RUN.
    "etc/apt/apt.conf.d/container": (
        0o644,
        (
            f'DPkg::Post-Invoke {{ "{_CLEAN}"; }};\nAPT::Update::Post-Invoke {{ "{_CLEAN}"; }};\n'
            'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
            'Acquire::GzipIndexes "true";\nAcquire::Languages "none";\nApt::AutoRemove::SuggestsImportant "false";\n'
        ),
    ),
    # The engine mounts its own over these; the host's must not be in the image.
    "etc/resolv.conf": (0o644, ""),
    "etc/hostname": (0o644, ""),
    "etc/hosts": (0o644, ""),
}
REMOVED = (
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0000main.sources",
    "etc/apt/sources.list.d/0000main.list",
    "etc/machine-id",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/log/apt",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be installed and from where."""

    distribution: Distribution
    suite: str
    slim: bool
    variant: str
    include: tuple[str, ...]
    sources: tuple[Source, ...]
    epoch: int

    def command(self) -> list[str]:
        command = [TOOL, f"--variant={self.variant}", "--format=tar"]
        if self.include:
            command.append(f"--include={','.join(self.include)}")
        if self.slim:
            command += [f"--dpkgopt={option}" for option in SLIM]
        return [*command, self.suite, "-", "-"]

    def config(self) -> dict[str, Any]:
        """The image's configuration, like that of Docker's official image."""
        created = timestamp_seconds(self.epoch)
        made_by = f"mmdebstrap --variant={self.variant} {self.suite} {' '.join(source.uri for source in self.sources)}"
        return {
            "created": created,
            "config": {"Cmd": ["bash"], "Env": [PATH]},
            "history": [
                {"created": created, "created_by": made_by, "comment": "bootstrapped by Atoll"},
                {"created": created, "created_by": 'CMD ["bash"]', "empty_layer": True},
            ],
        }


def suite_of(reference: Reference) -> tuple[Distribution, str, bool]:
    """What a reference asks for: distribution, suite, and whether its slim form. Raises InvalidInput for what is neither."""
    tag = reference.tag or "latest"
    distribution = next((one for one in DISTRIBUTIONS if one.name == reference.path.rpartition("/")[2]), None)
    if distribution is not None:
        slim = distribution.slim and tag.endswith("-slim")
        name = tag.removesuffix("-slim") if slim else tag
        suite = distribution.versions.get(name) or distribution.versions.get(name.split(".")[0]) or name
        if suite in distribution.suites:
            return distribution, suite, slim
    raise InvalidInput(
        f"cannot bootstrap {reference.familiar}: only Debian and Ubuntu can be made from packages, "
        "for instance debian:bookworm, debian:bookworm-slim or ubuntu:24.04"
    )


async def plan(reference: Reference, *, variant: str, include: Sequence[str], mirror: str | None) -> Plan:
    """Checks the tools and reaches the mirror. Raises InvalidInput, NotSupported naming the missing tool, Unavailable naming the mirror."""
    distribution, suite, slim = suite_of(reference)
    if variant not in VARIANTS:
        raise InvalidInput(f"unknown variant {variant!r}: one of {', '.join(VARIANTS)}")
    for package in include:
        if not package.replace("-", "").replace("+", "").replace(".", "").isalnum() or package.startswith("-"):
            raise InvalidInput(f"{package!r} is no package name")
    if shutil.which(TOOL) is None:
        raise NotSupported(f"{TOOL} is not installed, and makes the image: apt-get install {TOOL} debian-archive-keyring")
    if not distribution.keyring.exists():
        raise NotSupported(f"{distribution.keyring} is missing, and checks the packages' signatures: {distribution.keyring_from}")
    chosen = sources(distribution, suite, mirror)
    epoch = max([await _release_time(source.uri, one) for source in chosen for one in source.suites])
    return Plan(distribution, suite, slim, variant, tuple(include), tuple(chosen), epoch)


async def make_layer(plan: Plan, snapshots: Snapshots, progress: Progress) -> Layer:
    """Runs mmdebstrap and unpacks what it makes. Raises Unavailable with its last words; stopped when cancelled."""
    read_end, write_end = os.pipe()
    log: list[str] = []
    with os.fdopen(read_end, "rb", buffering=0) as tar:
        try:
            environment = {**os.environ, "SOURCE_DATE_EPOCH": str(plan.epoch), "LC_ALL": "C.UTF-8"}
            process = await asyncio.create_subprocess_exec(
                *plan.command(),
                stdin=asyncio.subprocess.PIPE,
                stdout=write_end,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        unpack = asyncio.ensure_future(
            asyncio.to_thread(snapshots.unpack_now, iter(lambda: tar.read(PIECE), b""), finish=lambda root: finish(root, plan))
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                assert process.stdin is not None
                assert process.stderr is not None
                process.stdin.write("\n".join(source.stanza() for source in plan.sources).encode())
                process.stdin.close()
                async for line in process.stderr:
                    _report(line.decode("utf-8", "replace").strip(), log, progress)
                code = await process.wait()
                if code == 0:
                    return await asyncio.shield(unpack)
        except TimeoutError:
            raise Unavailable(f"{TOOL} did not finish within {TIMEOUT_S / 60:.0f} minutes: is the mirror slow? {_last(log)}") from None
        finally:
            await _stop(process)
            await asyncio.wait([unpack])
            if not unpack.cancelled():
                unpack.exception()  # a cut tar is the consequence; mmdebstrap's failure is the cause
    uris = ", ".join(source.uri for source in plan.sources)
    raise Unavailable(f"{TOOL} could not install {plan.distribution.title} {plan.suite} from {uris}: {_last(log)}")


def finish(root: int, plan: Plan) -> None:
    """The settings of a container's system, written below the directory `root`."""
    for path in REMOVED:
        remove_in_root(root, path)
    stanzas = "\n".join(source.stanza() for source in plan.sources)
    for path, (mode, text) in {**FILES, f"etc/apt/sources.list.d/{plan.distribution.name}.sources": (0o644, stanzas)}.items():
        remove_in_root(root, path)
        fd = open_in_root(root, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.write(fd, text.encode())
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
    _clamp_times(root, plan.epoch)


def _clamp_times(root: int, epoch: int) -> None:
    """Nothing in the image is newer than the archive it was made from."""
    for _, directories, files, fd in os.fwalk(".", topdown=False, dir_fd=root):
        for name in (*files, *directories):
            if os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime > epoch:
                os.utime(name, (epoch, epoch), dir_fd=fd, follow_symlinks=False)


async def _release_time(uri: str, suite: str) -> int:
    """The Date of a suite's Release file: the mirror answers, has the suite, and gives the image its time. It is not trusted for more."""
    url = urlsplit(uri)
    name = f"{uri}/dists/{suite}/Release"
    try:
        origin = f"{url.scheme}://{url.netloc}"
        async with Client(origin, timeout=RELEASE_TIMEOUT_S, proxy=proxy_for(origin)) as client:
            response = await client.request("GET", f"{url.path}/dists/{suite}/Release")
            async with response, asyncio.timeout(RELEASE_TIMEOUT_S):
                if response.status != 200:
                    raise Unavailable(f"the mirror has no {name} (status {response.status}): name another with --mirror")
                text = await response.read(RELEASE_MAX)
    except (Unavailable, Disconnected, BodyTooLarge, TimeoutError) as error:
        raise Unavailable(f"cannot reach the mirror {uri}: {error or 'timed out'}. Name another with --mirror") from error
    for line in text.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key == "Date":
            with suppress(ValueError):
                return int(email.utils.parsedate_to_datetime(value.strip().replace("UTC", "+0000")).timestamp())
    raise Unavailable(f"{name} is no Release file: name another mirror with --mirror")


def _report(line: str, log: list[str], progress: Progress) -> None:
    if not line:
        return
    log.append(line)
    del log[:-LOG_LINES]
    if line.startswith("I: "):
        words = line[3:]
        progress({"status": words[:1].upper() + words[1:]})


def _last(log: list[str]) -> str:
    errors = [line for line in log if line.startswith(("E:", "Err:"))]
    return " / ".join((errors or log)[-3:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
