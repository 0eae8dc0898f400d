"""A container's last words: its termination message, from the file it wrote or, as a fallback, from its log."""

from __future__ import annotations

from pathlib import Path

from atoll.client.objects import Object
from atoll.node.pods.model import ContainerState

MESSAGE_MAX = 4096  # bytes; kubelet's MaxContainerTerminationMessageLength
LOG_BYTES, LOG_LINES = 2048, 80
_TEXT = 40  # where the text of a line in CRI's format begins


def termination_message(container: Object, state: ContainerState, path: Path, log: Path) -> str:
    try:
        with path.open("rb") as file:
            words = file.read(MESSAGE_MAX).decode(errors="replace")
    except OSError:
        words = ""
    if words or container.get("terminationMessagePolicy") != "FallbackToLogsOnError" or state.exit_code == 0:
        return words
    return _tail(log)


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - 64 * 1024))
            lines = file.read().splitlines()
    except OSError:
        return ""
    text = b"\n".join(line[_TEXT:] for line in lines[-LOG_LINES:] if len(line) >= _TEXT)
    return text[-LOG_BYTES:].decode(errors="replace")
