"""`inspect` of containers, images, networks and volumes, by kind or by whatever has the name."""

from __future__ import annotations

import sys

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.quickjson import compact, indented
from atoll.cli.session import CommandFailed, engine
from atoll.cli.wire import Engine, EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATHS = {"container": "/containers/{}/json", "image": "/images/{}/json", "network": "/networks/{}", "volume": "/volumes/{}"}
FORMAT = Flag("format", "f", "string", "Format output using a custom template: 'json' or a Go template")
SIZE = Flag("size", "s", "bool", "Display total file sizes if the type is container")
TYPE = Flag("type", "", "string", "Only inspect objects of the given type (container, image, network, volume)")


def inspect() -> Command:
    summary = "Return low-level information on objects: containers, images, networks, volumes"
    return Command(_any, "[OPTIONS] NAME|ID [NAME|ID...]", summary, (FORMAT, SIZE, TYPE), minimum=1)


def _of(kind: str) -> Callable[[], Command]:
    def command() -> Command:
        name = kind.upper()
        flags = (FORMAT, SIZE) if kind == "container" else (FORMAT,)
        summary = f"Display detailed information on one or more {kind}s"
        return Command(lambda options, names: _show(options, names, (kind,)), f"[OPTIONS] {name} [{name}...]", summary, flags, minimum=1)

    return command


container, image, network, volume = _of("container"), _of("image"), _of("network"), _of("volume")


def _any(options: Options, names: list[str]) -> int:
    kind = options["type"]
    if kind and kind not in PATHS:
        raise CommandFailed(f"unknown type: {kind}")
    return _show(options, names, (kind,) if kind else tuple(PATHS))


def _show(options: Options, names: list[str], kinds: tuple[str, ...]) -> int:
    client = engine()
    found, missing = [], []
    for name in names:
        value = _find(client, name, kinds, size="size" in options and options["size"])
        if value is None:
            missing.append(f"Error: No such {'object' if len(kinds) > 1 else kinds[0]}: {name}")
        else:
            found.append(value)
    form = options["format"]
    if form and form != "json":
        from atoll.cli.template import Template

        template = Template(form)
        for value in found:
            print(template.render(value))
    elif form:
        for value in found:
            print(compact(value))
    else:
        print(indented(found))
    for line in missing:
        print(line, file=sys.stderr)
    return 1 if missing else 0


def _find(client: Engine, name: str, kinds: tuple[str, ...], *, size: bool) -> Any:
    for kind in kinds:
        try:
            return client.get(PATHS[kind].format(name), {"size": True} if size and kind == "container" else None)
        except EngineError as error:
            if error.status not in (400, 404):
                raise
    return None
