"""The soak of benchmarks/soak.py, for a few seconds: cycles alone and under kills of engine and keeper."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from atoll.config import Instance
from atoll.runtime.constants import EXPECTED_S

sys.path.append(str(Path(__file__).parents[2]))

soak = pytest.importorskip("benchmarks.soak")


def test_nothing_is_left_and_what_was_told_is_true(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SETTLE_S", EXPECTED_S + 0.5)  # children that wait for a start are no leak, and end by then
    soaked = soak.Soak(instance, workers=3)
    try:
        soaked.work(10)
        before = soaked.footprint()
        soaked.kills(12)
        after = soaked.footprint()
    finally:
        soaked.close()
    assert soaked.failures == []
    assert {name: value for name, value in after.items() if value > before[name] and not name.endswith("MB")} == {}
