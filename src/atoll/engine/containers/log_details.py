"""`docker logs --details`: what the log options labels, env and tag add to every line of a container's log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote_plus

from atoll.engine.containers.log_options import compiled
from atoll.engine.containers.record import Record

_FIELD = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")


def details(record: Record) -> bytes:
    """Such as b"colour=blue,tag=web ", ordered by key, Docker's format; a blank alone where the options choose nothing."""
    chosen = dict(_chosen(record))
    return ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(chosen.items())).encode() + b" "


def _chosen(record: Record) -> Iterator[tuple[str, str]]:
    options = record.host["LogConfig"]["Config"]
    labels: dict[str, str] = record.config["Labels"]
    variables = dict(item.partition("=")[::2] for item in record.config["Env"] or ())
    for known, names, pattern in ((labels, "labels", "labels-regex"), (variables, "env", "env-regex")):
        wanted = options.get(names, "").split(",")
        expression = compiled(options, pattern)
        yield from ((key, value) for key, value in known.items() if key in wanted or (expression is not None and expression.search(key)))
    if options.get("tag"):
        yield "tag", _FIELD.sub(lambda field: _fields(record).get(field[1], field[0]), options["tag"])


def _fields(record: Record) -> dict[str, str]:
    """What a tag may name, as {{.Name}}."""
    image = record.image.removeprefix("sha256:")
    return {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image[:12],
        "ImageFullID": image,
        "ImageName": record.image_name,
        "DaemonName": "docker",
    }
