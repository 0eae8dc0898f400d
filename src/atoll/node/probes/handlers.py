"""One action against a container: exec, HTTP GET, TCP connect or sleep; what probes and lifecycle hooks are made of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from dataclasses import dataclass

from atoll.client.objects import Object
from atoll.engine import Engine
from atoll.errors import AtollError, NotSupported
from atoll.http import Client
from atoll.runtime import KeeperLost, StartFailed

OUTPUT_MAX = 10 * 1024  # bytes of an answer that are kept, kubelet's maxRespBodyLength and maxReadLength
REDIRECTS_MAX = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    ok: bool
    message: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask: the container, and the address its pod is reached at."""

    container: Object
    container_id: str
    address: str


async def act(engine: Engine, target: Target, handler: Object, seconds: float) -> Outcome:
    """Do what `handler` (of a probe or a hook) says, in at most `seconds`. Raises NotSupported for kinds that are not done here."""
    try:
        if "exec" in handler:
            return await _exec(engine, target, handler["exec"].get("command") or [], seconds)
        if "httpGet" in handler:
            return await _http(target, handler["httpGet"], seconds)
        if "tcpSocket" in handler:
            return await _tcp(target, handler["tcpSocket"], seconds)
        if "sleep" in handler:
            await asyncio.sleep(min(float(handler["sleep"].get("seconds") or 0), seconds))
            return Outcome(True)
    except StartFailed as error:
        return Outcome(False, str(error))
    except (AtollError, OSError) as error:
        if isinstance(error, NotSupported):
            raise
        return Outcome(False, str(error))
    raise NotSupported(f"{', '.join(key for key in handler if isinstance(handler[key], dict)) or 'an empty handler'} is not supported here")


async def _exec(engine: Engine, target: Target, command: list[str], seconds: float) -> Outcome:
    body = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
    exec_id = await engine.exec.create(target.container_id, body)
    try:
        session = await engine.exec.start(exec_id)
    except KeeperLost:
        return await _exec(engine, target, command, seconds)
    output = bytearray()
    if session is None:
        return Outcome(False, "no output could be read")
    try:
        async with asyncio.timeout(seconds):
            async for _, data in session.output():
                output += data[: OUTPUT_MAX - len(output)]
            code = await engine.exec.get(exec_id).ended
    except TimeoutError:
        with contextlib.suppress(AtollError):
            await engine.runtime.signal(target.container_id, 9, exec_id=exec_id)
        return Outcome(False, f"command timed out: {command} timed out after {seconds:g}s")
    finally:
        session.close()
    if session.attach.is_lost:  # with a keeper that ended, which says nothing of the container
        return await _exec(engine, target, command, seconds)
    return Outcome(code == 0, bytes(output).decode(errors="replace"))


async def _http(target: Target, get: Object, seconds: float) -> Outcome:
    scheme = str(get.get("scheme") or "HTTP").lower()
    host = get.get("host") or target.address
    base = f"{scheme}://{host}:{port_number(target.container, get['port'])}"
    path = get.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    context = None
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # upstream's probes skip verification, too
    headers = [(item["name"], item["value"]) for item in get.get("httpHeaders") or ()]
    for name, value in (("User-Agent", "kube-probe/1.36"), ("Accept", "*/*")):
        if not any(given.lower() == name.lower() for given, _ in headers):
            headers.append((name, value))
    client = Client(base, context, timeout=seconds)
    try:
        async with asyncio.timeout(seconds):
            for _ in range(REDIRECTS_MAX):
                response = await client.request("GET", path, headers)
                body = (await response.read(OUTPUT_MAX)) if response.status >= 400 else b""
                response.close()
                where = response.headers.get("location")
                if not 300 <= response.status < 400 or not where or not where.startswith("/"):
                    break  # a redirect to another host counts as success, as upstream
                path = where
    except TimeoutError:
        return Outcome(False, f'Get "{base}{path}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
    except AtollError as error:
        return Outcome(False, f'Get "{base}{path}": {error}')
    finally:
        await client.close()
    if 200 <= response.status < 400:
        return Outcome(True)
    return Outcome(False, f"HTTP probe failed with statuscode: {response.status}" + (f": {body.decode(errors='replace')}" if body else ""))


async def _tcp(target: Target, tcp: Object, seconds: float) -> Outcome:
    host, port = tcp.get("host") or target.address, port_number(target.container, tcp["port"])
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Outcome(False, f"dial tcp {host}:{port}: connect: {os.strerror(error.errno or 0).lower()}")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Outcome(True)


def port_number(container: Object, port: int | str) -> int:
    """A number, or the container's port of that name."""
    if isinstance(port, int):
        return port
    for known in container.get("ports") or ():
        if known.get("name") == port:
            return int(known["containerPort"])
    if port.isdigit():
        return int(port)
    raise AtollError(f"couldn't find port {port!r} of container {container['name']}")
