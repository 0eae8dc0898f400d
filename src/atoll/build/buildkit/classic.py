"""POST /build?version=2: BuildKit's Solve as docker's own clients asked for it before buildx did, by the classic parameters.

The context is with their session ("client-session"), or behind a URL; the status goes among the answer's lines, a StatusResponse in each.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.buildkit.frontend import FRONTEND, PULL
from atoll.build.options import Options

SESSION_CONTEXT = "client-session"
TRACE = "moby.buildkit.trace"
IMAGE = "moby.image.id"


def solve_request(ref: str, session: str, options: Options, outputs: Sequence[dict[str, Any]], cache_from: Sequence[str]) -> Any:
    """The SolveRequest of a classic request."""
    attributes = {
        "filename": options.dockerfile,
        "target": options.target,
        "platform": options.platform,
        "add-hosts": ",".join(host.replace(":", "=", 1) for host in options.limits.get("ExtraHosts") or ()),
        "ulimit": ",".join(f"{one['Name']}={one['Soft']}:{one['Hard']}" for one in options.limits.get("Ulimits") or ()),
        "shm-size": str(options.limits.get("ShmSize") or ""),
        "cgroup-parent": str(options.limits.get("CgroupParent") or ""),
        "force-network-mode": options.network if options.network != "default" else "",
        "image-resolve-mode": PULL if options.pull else "",
        "context": options.remote if options.remote != SESSION_CONTEXT else "",
        **{f"build-arg:{name}": value for name, value in options.arguments.items() if value is not None},
        **{f"label:{name}": value for name, value in options.labels.items()},
    }
    request = messages.SolveRequest(Ref=ref, Session=session, Frontend=FRONTEND)
    request.FrontendAttrs.update({name: value for name, value in attributes.items() if value})
    if options.no_cache:
        request.FrontendAttrs["no-cache"] = ""
    for output in outputs or [{"Type": "moby", "Attrs": {}}]:
        kind = output.get("Type") or "moby"
        names = {"name": ",".join(options.tags)} if kind == "moby" and options.tags else {}
        request.Exporters.add(Type=kind, Attrs={**(output.get("Attrs") or {}), **names})
    for reference in cache_from:
        request.Cache.Imports.add(Type="registry", Attrs={"ref": reference})
    return request


def quiet(message: dict[str, Any]) -> dict[str, Any] | None:
    """What is left of a line where only the image is to be told."""
    return {"stream": f"{message['aux']['ID']}\n"} if message["id"] == IMAGE else None


def status_line(status: Any) -> dict[str, Any]:
    """A StatusResponse as one of the answer's lines."""
    return {"id": TRACE, "aux": base64.b64encode(status.SerializeToString()).decode()}


def image_line(image_id: str) -> dict[str, Any]:
    return {"id": IMAGE, "aux": {"ID": image_id}}
