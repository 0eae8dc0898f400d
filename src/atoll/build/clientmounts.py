"""RUN --mount=type=secret and ssh: what only the client has, for one step, and nowhere else afterwards.

A secret is a file in memory or a variable of the step's; the agent is a socket. Neither is part of a layer, a history, a log or a cache
key: a step that is found in the cache asks for none of them.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from atoll.build.executor import Bind, Secret, StepMount
from atoll.build.mounts import Mount
from atoll.build.work import Site
from atoll.errors import NotFound

SOCKET_VARIABLE = "SSH_AUTH_SOCK"


@dataclass(slots=True)
class Given:
    """What a step gets: mounts, and variables."""

    mounts: list[StepMount] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


async def give(site: Site, stack: AsyncExitStack, mount: Mount, given: Given) -> None:
    """Adds what MOUNT asks for to GIVEN; it is there until STACK is closed. Raises NotFound for what is required and is not there."""
    if mount.kind == "secret":
        await _secret(site, mount, given)
    else:
        await _agent(site, stack, mount, given)


async def _secret(site: Site, mount: Mount, given: Given) -> None:
    data = await site.build.client.secrets.secret(mount.id)
    if data is None:
        if mount.required:
            raise NotFound(f"secret {mount.id}: not found: give it with --secret id={mount.id}")
        return
    if mount.target:
        given.mounts.append(Secret(mount.target, data, mount.mode, mount.uid, mount.gid))
    if mount.env:
        given.secrets.append(f"{mount.env}={os.fsdecode(data)}")


async def _agent(site: Site, stack: AsyncExitStack, mount: Mount, given: Given) -> None:
    socket = await stack.enter_async_context(site.build.client.secrets.agent(mount.id))
    if socket is None:
        if mount.required:
            raise NotFound(f'no SSH key "{mount.id}" forwarded from the client: give it with --ssh {mount.id}')
        return
    os.chown(socket, mount.uid, mount.gid)
    socket.chmod(mount.mode)
    given.mounts.append(Bind(mount.target, socket, writable=True))
    if not any(variable.startswith(f"{SOCKET_VARIABLE}=") for variable in given.secrets):
        given.secrets.append(f"{SOCKET_VARIABLE}={mount.target}")
