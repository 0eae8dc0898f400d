"""The registry of an instance as a process in the background: `python -m atoll.registry.daemon --addr 127.0.0.1:5000 --pid-file PATH`.

It shares the engine's content. The pid file's lock says that it lives; `--ready-fd N` gets one byte once it answers.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from atoll import process
from atoll.config import Instance
from atoll.errors import AtollError
from atoll.images.sharing import engine_blobs, registry_root
from atoll.registry.server import Settings, serve

log = logging.getLogger("atoll.registry")


def main() -> int:
    parser = process.arguments("atoll.registry.daemon", "Serve the registry of the instance ATOLL_HOME names.")
    parser.add_argument("--addr", required=True, help="host:port")
    parser.add_argument("--pid-file", required=True, type=Path)
    options = parser.parse_args()
    host, _, port = options.addr.rpartition(":")
    try:
        instance = Instance.from_environment()
        process.settle(instance.home)
        settings = Settings(registry_root(instance), engine_blobs(instance), host, int(port))
        with process.sole(options.pid_file, "registry"):
            process.set_up_logging(instance.logs / "registry.log")
            process.run(serve(settings, lambda _: process.tell_ready(options.ready_fd)))
    except AtollError as error:
        sys.stderr.write(f"atoll: {error}\n")
        return 1
    except Exception as error:
        log.exception("the registry failed")
        sys.stderr.write(f"atoll: the registry failed: {error!r}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
