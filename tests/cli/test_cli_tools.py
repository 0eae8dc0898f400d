"""The genuine programs are found by what their wheels have installed, whatever stands in PATH."""

from __future__ import annotations

import os
import sys

import pytest

from atoll.cli.session import CommandFailed
from atoll.cli.verbs.tools import program


@pytest.fixture
def site(tmp_path, monkeypatch):
    metadata = tmp_path / "lib/site/some_tool-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "RECORD").write_text("../../bin/tool,sha256=x,5\nother/tool.txt,,\nsome_tool-1.0.dist-info/RECORD,,\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_text("tool")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "none.zip"), str(tmp_path / "lib/site")])
    return tmp_path


def test_the_program_is_where_its_wheel_has_put_it(site):
    os.chmod(site / "bin/tool", 0o755)
    assert program("tool", "some-tool") == str(site / "bin/tool")


@pytest.mark.parametrize(("name", "package"), [("tool", "some-tool"), ("tool.txt", "some-tool"), ("tool", "some"), ("tool", "other")])
def test_a_missing_program_says_what_brings_it(site, name, package):
    """Not executable; not there; of a package whose name only begins alike; of none."""
    with pytest.raises(CommandFailed, match=f"pip install {package}"):
        program(name, package)
