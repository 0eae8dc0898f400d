"""The list of names beside this file against the tests: each name that needs no running pod has one test, in whatever directory.

`names.tsv` has a row for each of the 446 names that the public conformance profile of Kubernetes 1.36 checks: `covered`; `pod`, with what
the test asks of a pod that really runs (the matter of tests/node and tests/cluster); or `open`, with what is missing.
"""

import ast
import csv
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMES = 446


@pytest.fixture(scope="module")
def rows():
    with (HERE / "names.tsv").open(newline="") as file:
        return list(csv.reader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def named():
    """How many tests carry each name."""
    found = Counter()
    for path in HERE.parent.rglob("test_*.py"):
        text = path.read_text()
        if "[Conformance]" in text and path != Path(__file__):
            constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
            found.update(
                each for each in constants if isinstance(each, str) and each.startswith("[sig-") and each.endswith(" [Conformance]")
            )
    return found


def test_every_name_is_listed_once(rows):
    assert len({name for _, name, _ in rows}) == len(rows) == NAMES


def test_every_name_without_a_pod_has_one_test(rows, named):
    wanted = {name: 1 for state, name, _ in rows if state == "covered"}
    assert named == Counter(wanted)


def test_every_other_name_has_its_reason(rows):
    assert [name for state, name, reason in rows if state != "covered" and not reason] == []
    assert {state for state, _, _ in rows} <= {"covered", "pod", "open"}
