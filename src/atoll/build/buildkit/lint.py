"""`docker build --check`: the build checks alone, as the frontend's subrequest "frontend.lint" answers them (version 1.0.0)."""

from __future__ import annotations

import base64
from typing import Any

import orjson

from atoll.build.buildkit.board import Board, rule_url

SUBREQUEST = "frontend.lint"
VERSION = b"1.0.0"


def result(board: Board) -> dict[str, bytes]:
    """The findings as the client's printer reads them, with the file they point into."""
    source = board.source
    warnings: list[dict[str, Any]] = [
        {
            "ruleName": one.rule,
            "url": rule_url(one.rule),
            "detail": one.text,
            "location": {"ranges": [{"start": {"line": one.line}, "end": {"line": one.line}}]},
        }
        for one in board.findings
    ]
    file = {"filename": source.filename, "language": "Dockerfile", "data": base64.b64encode(source.data).decode()}
    document = orjson.dumps({"warnings": warnings or None, "sources": [file]})
    text = "".join(f"{one}\n" for one in board.findings)
    return {"result.json": document, "result.txt": text.encode(), "result.statuscode": b"1" if warnings else b"0", "version": VERSION}
