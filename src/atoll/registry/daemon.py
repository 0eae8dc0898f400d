"""The registry of an instance as a process in the background: `python -m atoll.registry.daemon --addr 127.0.0.1:5000 --pid-file PATH`.

It shares the engine's content. The pid file's lock says that it lives; `--ready-fd N` gets one byte once it answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from atoll import process
from atoll.config import Instance
from atoll.images.sharing import engine_blobs, registry_root
from atoll.registry.server import Settings, serve


def _run() -> None:
    parser = process.arguments("atoll.registry.daemon", "Serve the registry of the instance ATOLL_HOME names.")
    parser.add_argument("--addr", required=True, help="host:port")
    parser.add_argument("--pid-file", required=True, type=Path)
    options = parser.parse_args()
    host, _, port = options.addr.rpartition(":")
    instance = Instance.from_environment()
    settings = Settings(registry_root(instance), engine_blobs(instance), host, int(port))
    process.alone(
        lambda: serve(settings, lambda _: process.tell_ready(options.ready_fd)),
        "registry",
        home=instance.home,
        pid_file=options.pid_file,
        log=instance.logs / "registry.log",
    )


def main() -> int:
    return process.outcome("registry", _run)


if __name__ == "__main__":
    sys.exit(main())
