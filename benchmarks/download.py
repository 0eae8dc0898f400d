"""GET of a file of SIZE bytes from a port of 127.0.0.1, in MB/s.

    python benchmarks/download.py PORT SIZE

A program of its own, since a peer's ports are in a network namespace of its own.
"""

from __future__ import annotations

import socket
import sys
import time

READY_S = 20.0
STEP_S = 0.1


def rate(port: int, size: int) -> float:
    """0 where less comes: the server is not there yet, or still writes its file."""
    with socket.create_connection(("127.0.0.1", port), READY_S) as connection:
        connection.sendall(b"GET /file HTTP/1.0\r\n\r\n")
        buffer = bytearray(1 << 20)
        begin, got = time.perf_counter(), 0
        while count := connection.recv_into(buffer):
            got += count
        return got / 1e6 / (time.perf_counter() - begin) if got >= size else 0


def main() -> None:
    port, size = map(int, sys.argv[1:])
    end = time.monotonic() + READY_S
    found = 0.0
    while not found:
        assert time.monotonic() < end, f"port {port} does not serve {size} bytes"
        try:
            found = rate(port, size)
        except OSError:
            found = 0
        if not found:
            time.sleep(STEP_S)
    print(found)


if __name__ == "__main__":
    main()
