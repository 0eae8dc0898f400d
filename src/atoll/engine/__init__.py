"""The Docker Engine API: containers, exec, images, builds, networks, volumes and events of one instance.

`Engine` is the façade. Clients reach it over the unix socket through `engine.router` (engine.routes: thin, one module a tag of the API
specification); the kubelet uses the same objects in process. Bodies and answers are the dicts of the Docker Engine API, so both ways in see
one behaviour.

    engine = Engine(instance)
    await engine.start()                      # opens the state, connects the keeper, finishes or undoes what a crash cut short
    id = await engine.containers.create("name", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}})
    await engine.containers.start(id)         # errors: StartFailed (400, names why the program did not start; .exit_code 126 or 127)
    status = await engine.containers.wait(id) # atoll.runtime.ExitStatus
    await engine.containers.remove(id, force=True)
    await engine.close()                      # containers run on

`engine.containers`
    create(name | None, body, platform=None) -> id         start(id) / stop(id, timeout=None, signal=None) / kill(id, signal="KILL")
    restart(id, timeout=None) / pause(id) / resume(id)     rename(id, name) / update(id, body) / resize(id, width, height)
    remove(id, force=False, volumes=False)                 wait(id, condition="not-running") -> ExitStatus
    inspect(id) -> dict                                    list(all=False, filters=None, limit=None, size=False) -> list[dict]
    logs(id, follow=, stdout=, stderr=, since=, until=, tail=, timestamps=) -> async iterator of (stream, bytes)
    attach(id, stdin=, stdout=, stderr=) -> Session        copying, changes, export, stats, top: see engine.containers
`engine.exec`
    create(id, body) -> exec id    start(exec_id, attach=True) -> Session | None    resize(exec_id, w, h)    inspect(exec_id) -> dict
`Session` (engine.streams) is one attached client: `async for stream, data in session.output()`, `await session.send(data)`,
`session.close_input()`, `session.close()`.
`engine.events`
    subscribe(filters=None, since=None, until=None) -> async iterator of Docker event dicts; publish(...)

In process, `HostConfig.NetworkMode` may also be "netns:<path>": the container joins that network namespace (a pod's), and the caller brings
/etc/hosts and /etc/resolv.conf as Binds. That form is refused over the socket.
"""

from __future__ import annotations

from atoll.engine.engine import Engine

__all__ = ["Engine"]
