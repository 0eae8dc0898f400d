"""Where a build's RUN steps run: ordinary containers of the engine, so that limits, networks, seccomp and trust are theirs too.

A step's container is made from an image of the step's state that nobody else sees, carries a label, and is gone when the step is over;
what a crash leaves is removed at the next start. Mounts of merged layers stand in run/build while their step runs: the keeper, another
process, could not reach a mount that is attached nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from atoll.build.executor import Bind, Memory, Merged, Output, Ran, Secret, Step, StepMount, credentials
from atoll.engine.containers.changes import OURS
from atoll.engine.containers.containers import Containers
from atoll.engine.names import new_id
from atoll.engine.platforms import platform_of
from atoll.engine.services import Services
from atoll.engine.streams import Session
from atoll.errors import Conflict, NotFound, SystemFailure
from atoll.images import Image, Progress, parse
from atoll.images.threads import in_thread, to_its_end
from atoll.kernel import mounts
from atoll.kernel.detached import mount_overlay
from atoll.runtime import ExitStatus

STEP_LABEL = "dev.atoll.build-step"
NOT_FOR_A_STEP = frozenset({"Cmd", "Entrypoint", "Healthcheck", "Volumes", "ExposedPorts", "OnBuild", "Labels"})
BALLAST = 1 << 20  # bytes: what the engine's own books need to tell the end of a step
# The output is told as it comes and belongs to no log; a step is no init and gets no signals but KILL.
HOST = {"LogConfig": {"Type": "none", "Config": {}}}


class BuildExecutor:
    """The builder's `Executor` over this engine."""

    def __init__(self, services: Services, containers: Containers) -> None:
        self._services = services
        self._containers = containers
        self._mounts = services.instance.run / "build"
        self._ballast: dict[str, Path] = {}
        services.runtime.on_exit.append(self._on_exit)

    def _on_exit(self, status: ExitStatus) -> None:
        """A step that has filled the disk leaves room to write down that it is over."""
        if status.exec_id is None:
            self._drop_ballast(status.id)

    def _drop_ballast(self, container: str) -> None:
        ballast = self._ballast.pop(container, None)
        if ballast is not None:
            ballast.unlink(missing_ok=True)

    @asynccontextmanager
    async def run(self, step: Step, begun: Callable[[str], None], output: Output) -> AsyncIterator[Ran]:
        images = self._services.images
        config = {name: value for name, value in step.config.items() if name not in NOT_FOR_A_STEP}
        # The label keeps it from being any image a user has, or that of a step of the same state beside this one.
        labels = {STEP_LABEL: new_id()}
        with ExitStack() as stack:
            bodies = await in_thread(lambda: [self._mounted(stack, mount) for mount in step.mounts])
            image = images.create_image({"config": {**config, "Labels": labels}, "history": []}, step.layers)
            container = ""
            try:
                container = await self._containers.create(None, self._body(step, image, bodies))
                begun(container)
                self._containers.get(container).secrets = tuple(step.secrets)
                self._ballast[container] = _reserve(self._services.instance.content / "tmp" / f"ballast-{container[:12]}")
                session = await self._containers.attach(container)
                await self._start(container, session, output)
                ended = await self._containers.wait(container)
                yield Ran(ended.code, self._containers.get(container).paths.upper, OURS, ended.oom_killed)
            finally:
                await to_its_end(self._remove(container, image))

    async def _start(self, container: str, session: Session, output: Output) -> None:
        try:
            await self._containers.start(container)
            while True:
                async for _, data in session.output():
                    await output(data)
                if not session.attach.is_lost:
                    return
                # The step goes on with the next keeper; what it wrote in between went to nobody.
                await output(b"[the keeper was replaced: output of this moment may be missing]\n")
                again = await self._attached_again(container)
                if again is None:
                    return
                self._containers.detach(container, session)
                session = again
        finally:
            self._containers.detach(container, session)

    async def _attached_again(self, container: str) -> Session | None:
        """None where the step has ended meanwhile."""
        await self._services.runtime.connect()
        try:
            return await self._containers.attach(container) if self._containers.get(container).is_up else None
        except (Conflict, NotFound):
            return None

    def _body(self, step: Step, image: Image, bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "Image": image.id,
            "Cmd": list(step.command),
            "Env": list(step.environment),
            "Labels": {STEP_LABEL: "step"},
            "HostConfig": {**HOST, "NetworkMode": step.network, "Mounts": list(bodies), **step.limits},
        }

    async def _remove(self, container: str, image: Image) -> None:
        if container:
            self._drop_ballast(container)
            with contextlib.suppress(NotFound):
                await self._containers.remove(container, force=True, volumes=True)
        await self._services.images.remove(image.id, force=True, prune=False)

    def _mounted(self, stack: ExitStack, mount: StepMount) -> dict[str, Any]:
        """The entry of HostConfig.Mounts; what it needs stands until STACK is closed."""
        if isinstance(mount, Memory):
            options = {"Options": [["exec"]], **({"SizeBytes": mount.size} if mount.size else {})}
            return {"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options}
        if isinstance(mount, Secret):
            source, writable = stack.enter_context(self._in_memory(mount)), False
        elif isinstance(mount, Bind):
            source, writable = mount.source, mount.writable
        else:
            source, writable = stack.enter_context(self._merged(mount)) / mount.path, mount.writable
        return {"Type": "bind", "Source": str(source), "Target": mount.target, "ReadOnly": not writable}

    @contextmanager
    def _in_memory(self, secret: Secret) -> Iterator[Path]:
        """A file of a file system that is gone with the step, or with the machine."""
        self._mounts.mkdir(exist_ok=True, mode=0o700)
        place = Path(tempfile.mkdtemp(dir=self._mounts))
        try:
            mounts.mount("tmpfs", str(place), "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0700")
            try:
                file = place / "secret"
                file.touch(mode=0o600)
                file.write_bytes(secret.data)
                os.chown(file, secret.uid, secret.gid)
                file.chmod(secret.mode)
                yield file
            finally:
                mounts.unmount(str(place), mounts.MNT_DETACH)
        finally:
            place.rmdir()

    @contextmanager
    def _merged(self, mount: Merged) -> Iterator[Path]:
        if len(mount.lowers) == 1 and not mount.writable:
            yield Path(mount.lowers[0])
            return
        self._mounts.mkdir(exist_ok=True, mode=0o700)
        place = Path(tempfile.mkdtemp(dir=self._mounts))
        scratch = Path(tempfile.mkdtemp(prefix="writes-", dir=self._services.instance.content / "tmp"))
        try:
            written = (scratch / "upper", scratch / "work") if mount.writable else ()
            for directory in written:
                directory.mkdir()
            mount_overlay(place, mount.lowers, *written)
            try:
                yield place
            finally:
                mounts.unmount(str(place), mounts.MNT_DETACH)
        finally:
            place.rmdir()
            shutil.rmtree(scratch, ignore_errors=True)

    async def pull(self, reference: str, platform: str | None, progress: Progress) -> Image:
        auth = await credentials.get()(parse(reference).domain)
        return await self._services.images.pull(reference, auth=auth, platform=platform_of(platform), progress=progress)

    async def remove_leftovers(self) -> None:
        """Steps of a build that a crash cut short."""
        for row in self._containers.list(all=True, filters={"label": [STEP_LABEL]}):
            await self._containers.remove(row["Id"], force=True, volumes=True)
        for image in self._services.images.all():
            if STEP_LABEL in (image.runtime_config.get("Labels") or {}) and not image.repo_tags:
                await self._services.images.remove(image.id, force=True, prune=False)
        await asyncio.to_thread(self._unmount_leftovers)

    def _unmount_leftovers(self) -> None:
        if not self._mounts.is_dir():
            return
        from atoll.build.client import SOCKET

        for place in self._mounts.iterdir():
            with contextlib.suppress(SystemFailure):  # not mounted, or not yet
                mounts.unmount(str(place), mounts.MNT_DETACH)
            (place / SOCKET).unlink(missing_ok=True)
            os.rmdir(place)


def _reserve(path: Path) -> Path:
    """Space on the disk that is given back when it matters; nothing where there is none even now."""
    with contextlib.suppress(OSError), path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST)
    return path
