"""The gateway that a client's own frontend calls (moby.buildkit.v1.frontend.LLBBridge): Ping, Solve, Return.

Each call says in its metadata to which Solve of the Control API it belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.buildkit.grpc import Call, Code, Handler, RpcError, unary
from atoll.build.buildkit.jobs import Job, Jobs
from atoll.build.buildkit.workers import worker

SERVICE = "/moby.buildkit.v1.frontend.LLBBridge/"
JOB_KEY = "buildkit-controlapi-buildid"
CAPABILITIES = (
    *("solve.base", "return", "returnmap", "proto.refarray", "reference.output", "importcaches", "frontend.inputs", "frontend.caps"),
    *("gateway.solve.metadata", "gateway.evaluate"),
)


class Gateway:
    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    @property
    def methods(self) -> Mapping[str, Handler]:
        return {
            f"{SERVICE}Ping": unary(messages.PingRequest, self._ping),
            f"{SERVICE}Solve": unary(messages.BridgeSolveRequest, self._solve),
            f"{SERVICE}Return": unary(messages.ReturnRequest, self._return),
            f"{SERVICE}Evaluate": unary(messages.EvaluateRequest, self._evaluate),
        }

    async def _job(self, call: Call) -> Job:
        ref = call.metadata.get(JOB_KEY)
        if not ref:
            raise RpcError(Code.INVALID_ARGUMENT, f"a call of the gateway needs {JOB_KEY} in its metadata")
        return await self._jobs.get(ref)

    async def _ping(self, _: Any, call: Call) -> Any:
        await self._job(call)
        capabilities = [messages.APICap(ID=name, Enabled=True) for name in CAPABILITIES]
        return messages.PongResponse(FrontendAPICaps=capabilities, LLBCaps=[], Workers=[worker()])

    async def _solve(self, request: Any, call: Call) -> Any:
        job = await self._job(call)
        return messages.BridgeSolveResponse(result=await job.frontend(request.Frontend, request.FrontendOpt, request.FrontendInputs))

    async def _evaluate(self, request: Any, call: Call) -> Any:
        """What Solve has answered is done already."""
        (await self._job(call)).built(messages.Result(ref=messages.Ref(id=request.Ref)))
        return messages.EvaluateResponse()

    async def _return(self, request: Any, call: Call) -> Any:
        (await self._job(call)).finish(request)
        return messages.ReturnResponse()
