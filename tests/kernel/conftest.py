"""Run a function in a forked child, since most of what is tested here cannot be undone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def in_child() -> Callable[[Callable[[], Any]], Any]:
    """Gives back the function's JSON-able result; an exception of the child's fails the test with its text."""

    def run(function: Callable[[], Any]) -> Any:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                answer = {"value": function()}
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(write_end, json.dumps(answer).encode())
            os._exit(0)
        os.close(write_end)
        with open(read_end, "rb") as answers:
            raw = answers.read()
        _, status = os.waitpid(pid, 0)
        assert raw, f"the child died with {status}"
        answer = json.loads(raw)
        assert "error" not in answer, answer
        return answer["value"]

    return run
