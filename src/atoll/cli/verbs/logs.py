"""`logs`."""

from __future__ import annotations

from atoll.cli import terminal
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import engine

FLAGS = (
    Flag("details", "", "bool", "Show extra details provided to logs"),
    Flag("follow", "f", "bool", "Follow log output"),
    Flag("since", "", "string", 'Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'),
    Flag("tail", "n", "string", "Number of lines to show from the end of the logs"),
    Flag("timestamps", "t", "bool", "Show timestamps"),
    Flag("until", "", "string", 'Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)'),
)


def logs() -> Command:
    return Command(_logs, "[OPTIONS] CONTAINER", "Fetch the logs of a container", FLAGS, minimum=1, maximum=1)


def _logs(options: Options, names: list[str]) -> int:
    client = engine()
    found = client.get(f"/containers/{names[0]}/json")
    query = {
        "stdout": True,
        "stderr": True,
        "follow": options["follow"],
        "timestamps": options["timestamps"],
        "tail": options["tail"] or "all",
        "since": moment(options["since"]),
        "until": moment(options["until"]),
        "details": options["details"],
    }
    reply = client.request("GET", f"/containers/{found['Id']}/logs", query)
    show = (lambda data: terminal.write_all(1, data)) if found["Config"]["Tty"] else terminal.Demultiplexer().feed
    try:
        for chunk in reply.chunks():
            show(chunk)
    finally:
        reply.close()
    return 0


def moment(text: str | None) -> str | None:
    """A duration before now, or an absolute time, as the wire's seconds since the epoch."""
    if not text:
        return None
    import time

    from atoll.cli.human import moment as absolute
    from atoll.errors import InvalidInput
    from atoll.units import parse_duration

    try:
        return f"{time.time() - parse_duration(text) / 1e9:.9f}"
    except InvalidInput:
        pass
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        return f"{absolute(text if 'T' in text else text + 'T00:00:00'):.9f}"
    except ValueError:
        raise InvalidInput(f'invalid value for "{text}": write a time such as 2026-01-02T15:04:05Z or a duration such as 10m') from None
