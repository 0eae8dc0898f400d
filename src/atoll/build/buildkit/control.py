"""BuildKit's API as its clients know it (moby.buildkit.v1.Control): Solve, Status, Info, ListWorkers, DiskUsage, Prune."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from atoll.build.builder import Builder
from atoll.build.buildkit import classic, messages, workers
from atoll.build.buildkit.cacheexport import export_caches, read_exports
from atoll.build.buildkit.client import SessionSecrets
from atoll.build.buildkit.export import CONFIG_DIGEST, STORED, export, exporters
from atoll.build.buildkit.failures import as_rpc_error
from atoll.build.buildkit.gateway import Gateway
from atoll.build.buildkit.grpc import Call, Code, Handler, RpcError, Services, unary
from atoll.build.buildkit.jobs import Job, Jobs
from atoll.build.buildkit.sessions import Sessions
from atoll.build.buildkit.tunnel import tunnel
from atoll.build.buildkit.upload import Posted
from atoll.build.client import Secrets
from atoll.build.executor import credentials
from atoll.errors import AtollError, Unavailable
from atoll.http import Duplex
from atoll.http.http2 import Http2
from atoll.images import Image, ImageStore
from atoll.images.views import parse_time_ns
from atoll.units import NS

SERVICE = "/moby.buildkit.v1.Control/"
SESSION_ID = "x-docker-expose-session-uuid"
SESSION_KEY = "x-docker-expose-session-sharedkey"
SESSION_METHOD = "x-docker-expose-session-grpc-method"

Told = Callable[[Image, str], None]
"""Hears of each image that is built, and of its first name."""


class Control:
    """BuildKit's face of one builder. RUN is for sockets."""

    def __init__(self, builder: Builder, images: ImageStore, run: Path, told: Told) -> None:
        self._builder = builder
        self._images = images
        self._run = run
        self._told = told
        self._jobs = Jobs()
        self._sessions = Sessions()
        self.posted = Posted()
        self._services = Services({**self._methods, **Gateway(self._jobs).methods})

    async def serve(self, duplex: Duplex) -> None:
        """POST /grpc: answers the client's calls until it goes; what it then still builds is stopped."""
        async with Http2(duplex, client=False) as connection:
            await self._services.serve(connection)

    async def attend(self, identity: str, duplex: Duplex, methods: Collection[str], shared_key: str) -> None:
        """POST /session: makes calls to the client until it goes. Raises Conflict."""
        async with self._sessions.opened(identity, duplex, methods, shared_key) as session:
            await session.wait_ended()

    @property
    def _methods(self) -> Mapping[str, Handler]:
        return {
            f"{SERVICE}Solve": unary(messages.SolveRequest, self._solve),
            f"{SERVICE}Status": self._status,
            f"{SERVICE}Info": unary(messages.InfoRequest, self._info),
            f"{SERVICE}ListWorkers": unary(messages.ListWorkersRequest, self._list_workers),
            f"{SERVICE}DiskUsage": unary(messages.DiskUsageRequest, self._disk_usage),
            f"{SERVICE}Prune": self._prune,
            f"{SERVICE}Session": self._session,
        }

    async def _info(self, _: Any, __: Call) -> Any:
        return messages.InfoResponse(buildkitVersion=workers.version())

    async def _list_workers(self, _: Any, __: Call) -> Any:
        return messages.ListWorkersResponse(record=[workers.worker()])

    async def secrets(self, identity: str) -> Secrets:
        """What a session gives to a build whose context comes another way. Raises NotFound."""
        return SessionSecrets(await self._sessions.get(identity), self._run)

    async def build(self, request: Any) -> AsyncIterator[dict[str, Any]]:
        """A Solve told by lines of the classic answer. Raises what Solve does."""
        job = await self._job(request)
        solving = asyncio.ensure_future(self._solved(job, request))
        try:
            async for status in job.board.follow():
                yield classic.status_line(status)
            told = (await solving).ExporterResponse
            if CONFIG_DIGEST in told:
                yield classic.image_line(told[CONFIG_DIGEST])
        finally:
            solving.cancel()
            await asyncio.gather(solving, return_exceptions=True)

    async def _job(self, request: Any) -> Job:
        session = await self._sessions.get(request.Session)
        return Job(request.Ref, session, self._builder, self._images, self.posted, self._run, request.Cache)

    async def _solve(self, request: Any, _: Call) -> Any:
        return await self._solved(await self._job(request), request)

    async def _solved(self, job: Job, request: Any) -> Any:
        """The SolveResponse; the job's board ends with it. Raises RpcError, and Unavailable where the session ends before."""
        gone = asyncio.ensure_future(job.session.wait_ended())
        done = asyncio.ensure_future(self._run_job(job, request))
        try:
            async with self._jobs.running(job):
                await asyncio.wait((gone, done), return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    raise Unavailable("the client's session has ended")
                return done.result()
        finally:
            gone.cancel()
            done.cancel()
            await asyncio.gather(gone, done, return_exceptions=True)
            job.board.end()

    async def _run_job(self, job: Job, request: Any) -> Any:
        kept: set[str] = set()
        credentials.set(job.session.credentials_of)
        try:
            caches = read_exports(request.Cache.Exports, job.board)
            if request.Frontend:
                result = await job.frontend(request.Frontend, request.FrontendAttrs, request.FrontendInputs)
            else:
                result = await job.result()
            built = job.built(result)
            told: dict[str, str] = {}
            for exporter in exporters(request) if built is not None else ():
                assert built is not None
                image = built.image
                told |= await export(exporter, image, self._images, job.session, job.board)
                if exporter.kind in STORED:
                    kept.add(image.id)
                    self._told(image, str(next(iter(exporter.names), "")))
            if built is not None:
                told |= await export_caches(caches, built, self._images, job.session, job.board)
            return messages.SolveResponse(ExporterResponse=told)
        except RpcError:
            raise
        except AtollError as error:
            raise as_rpc_error(error, job.board) from error
        finally:
            await job.end(kept)

    async def _status(self, call: Call) -> None:
        request = await call.receive(messages.StatusRequest)
        job = await self._jobs.get(request.Ref)
        async for answer in job.board.follow():
            await call.send(answer)

    async def _session(self, call: Call) -> None:
        """A session within a call, for clients that cannot open a connection beside this one."""
        identity = call.metadata.get(SESSION_ID)
        if not identity:
            raise RpcError(Code.INVALID_ARGUMENT, f"a session needs an id: {SESSION_ID} is missing in the metadata")
        async with tunnel(call) as stream:
            await self.attend(identity, stream, call.every(SESSION_METHOD), call.metadata.get(SESSION_KEY, ""))

    async def _disk_usage(self, _: Any, __: Call) -> Any:
        return messages.DiskUsageResponse(record=[_record(row) for row in self._builder.rows()])

    async def _prune(self, call: Call) -> None:
        request = await call.receive(messages.PruneRequest)
        limits = {"unused_since": time.time() - request.keepDuration / NS} if request.keepDuration else {}
        rows = {row["ID"]: row for row in self._builder.rows()}
        pruned = await self._builder.prune(**limits)
        for name in pruned["CachesDeleted"]:
            row = rows.get(name[:25])
            if row is not None:
                await call.send(_record(row))


def _record(row: Mapping[str, Any]) -> Any:
    """A UsageRecord of what GET /system/df shows."""
    return messages.UsageRecord(
        ID=row["ID"],
        InUse=row["InUse"],
        Size=row["Size"],
        CreatedAt=messages.timestamp(parse_time_ns(row["CreatedAt"])),
        LastUsedAt=messages.timestamp(parse_time_ns(row["LastUsedAt"])),
        UsageCount=row["UsageCount"],
        Description=row["Description"],
        RecordType=row["Type"],
        Shared=row["Shared"],
    )
