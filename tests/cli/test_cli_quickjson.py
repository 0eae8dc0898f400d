"""Held against the standard library's `json`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import atoll
from atoll.cli.quickjson import compact, dumps, indented, loads

SLOW = {"json", "re", "enum", "socket", "selectors", "subprocess", "typing", "contextlib", "signal", "dataclasses"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_says_what_json_says(value):
    assert dumps(value) == json.dumps(value)
    assert compact(value) == json.dumps(value, separators=(",", ":"))
    assert indented(value) == json.dumps(value, indent=4, ensure_ascii=False)
    assert loads(dumps(value)) == value
    assert loads(f" \n{indented(value)}\r\n".encode()) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "1 2", "nul", '{"a" 1}', '"\x01"', b"\xff", "01"])
def test_refuses_what_json_refuses(text):
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError):
        loads(text)


def test_refuses_what_json_does_not_have():
    with pytest.raises(TypeError, match="Object of type object is not JSON serializable"):
        dumps([object()])


def test_hot_verbs_load_nothing_slow():
    """The time of a short verb is the time of its imports."""
    source = Path(atoll.__file__).parents[1]
    code = f"""
import sys
sys.path.append({str(source)!r})
from atoll.cli.commands import TOP
from atoll.cli.main import load
for verb in ("run", "ps", "images", "inspect", "exec", "logs", "start", "stop", "rm"):
    load(TOP[verb][0])
print(*({SLOW!r} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
