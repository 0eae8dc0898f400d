"""`system dial-stdio`: standard input and output joined to the engine's socket; what `-H ssh://` starts at the other end."""

from __future__ import annotations

from atoll.cli import terminal
from atoll.cli.flags import Command, Options
from atoll.cli.session import engine


def dial() -> Command:
    return Command(_dial, "", "Proxy the stdio stream to the engine's socket", maximum=0)


def _dial(_: Options, __: list[str]) -> int:
    sock = engine().connect()
    try:
        terminal.join(sock, b"", tty=True, stdin=True)
    finally:
        sock.close()
    return 0
