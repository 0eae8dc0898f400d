"""`docker build --call`: what the Dockerfile frontend tells of a file instead of building it, as its subrequests answer (version 1.0.0).

Each answer has a document, which clients print their own way, and a text for those that cannot.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from atoll.build.builder import Builder
from atoll.build.buildkit import lint
from atoll.build.buildkit.board import Board
from atoll.build.client import Client
from atoll.build.options import Options
from atoll.build.outline import Outline, Outliner
from atoll.build.plan import Plan
from atoll.build.syntax import Dockerfile, Instruction
from atoll.errors import NotSupported
from atoll.images import ImageStore

OUTLINE, TARGETS, DESCRIBE = "frontend.outline", "frontend.targets", "frontend.subrequests.describe"
DESCRIPTIONS = {
    OUTLINE: "List all parameters current build target supports",
    TARGETS: "List all targets current build supports",
    lint.SUBREQUEST: "Lint a Dockerfile",
    DESCRIBE: "List available subrequest types",
}
VERSION = b"1.0.0"
DEFAULT = "(default)"
GAP = 3  # between columns


async def answer(name: str, builder: Builder, images: ImageStore, client: Client, options: Options, board: Board) -> dict[str, bytes]:
    """The result's metadata. Raises NotSupported, DockerfileError, InvalidInput."""
    match name:
        case lint.SUBREQUEST:
            await builder.check(client, options, board)
            return lint.result(board)
        case "frontend.outline":
            file, arguments = await builder.parsed(client, options)
            plan = Plan(file, arguments.globals, options.contexts)
            return _outline(Outliner(file, plan, arguments, images).read(plan.target(options.target)), board)
        case "frontend.targets":
            return _targets((await builder.parsed(client, options))[0], board)
        case "frontend.subrequests.describe":
            return _describe()
    raise NotSupported(f"the subrequest {name} is not supported: {', '.join(DESCRIPTIONS)} are")


def _outline(found: Outline, board: Board) -> dict[str, bytes]:
    origin, name = found.target.origin, found.target.name
    description = origin.description(name)
    arguments = [_row(one.origin, name=one.name, description=one.description, value=one.value) for one in found.arguments]
    secrets, agents = (
        [_row(one.origin, name=one.name, required=one.is_required) for one in ones] for ones in (found.secrets, found.agents)
    )
    document = _filled(name=name, description=description, args=arguments, secrets=secrets, ssh=agents, sources=_sources(board))
    texts = []
    if name or description:
        texts.append(_table([("TARGET:", name or DEFAULT), *([("DESCRIPTION:", description)] if description else ())]))
    if arguments:
        told = [(one.name, one.value, one.description) for one in found.arguments]
        texts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *told]))
    for title, ones in (("SECRET", found.secrets), ("SSH", found.agents)):
        if ones:
            texts.append(_table([(title, "REQUIRED"), *((one.name, "true" if one.is_required else "") for one in ones)]))
    return _result(document, "\n".join(texts))


def _targets(file: Dockerfile, board: Board) -> dict[str, bytes]:
    rows = [
        _row(
            stage.origin,
            name=stage.name,
            default=stage is file.stages[-1],
            description=stage.origin.description(stage.name),
            base=stage.base,
            platform=stage.platform,
        )
        for stage in file.stages
    ]
    told = [(stage.name or (DEFAULT if stage is file.stages[-1] else ""), stage.origin.description(stage.name)) for stage in file.stages]
    return _result({"targets": rows, "sources": _sources(board)}, _table([("TARGET", "DESCRIPTION"), *(row for row in told if row[0])]))


def _describe() -> dict[str, bytes]:
    requests = [{"name": name, "version": VERSION.decode(), "type": "rpc", "description": text} for name, text in DESCRIPTIONS.items()]
    rows = [(one["name"].removeprefix("frontend."), one["version"], one["description"]) for one in requests]
    return _result(requests, _table([("NAME", "VERSION", "DESCRIPTION"), *rows]))


def _row(origin: Instruction, **fields: Any) -> dict[str, Any]:
    place = {"start": {"line": origin.line}, "end": {"line": origin.last_line}}
    return _filled(**fields, location={"ranges": [place]})


def _filled(**fields: Any) -> dict[str, Any]:
    """Without the empty ones, as Go leaves them out."""
    return {name: value for name, value in fields.items() if value}


def _result(document: Any, text: str) -> dict[str, bytes]:
    return {"result.json": orjson.dumps(document, option=orjson.OPT_INDENT_2), "result.txt": text.encode(), "version": VERSION}


def _sources(board: Board) -> list[str]:
    """The file that the locations are in, as Go's JSON has bytes."""
    return [base64.b64encode(board.source.data).decode()]


def _table(rows: Iterable[Sequence[str]]) -> str:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) + GAP for column in range(len(rows[0]))]
    return "".join("".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)
