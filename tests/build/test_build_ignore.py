import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.build.ignore import Ignore
from atoll.errors import InvalidInput


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        ("*.log", "a.log", True),
        ("*.log", "dir/a.log", False),
        ("**/*.log", "dir/deep/a.log", True),
        ("**/*.log", "a.log", True),
        ("node_modules", "node_modules/x/y", True),
        ("/build", "build/x", True),
        ("build/", "build/x", True),
        ("dir/**", "dir/a/b", True),
        ("dir/**", "dir", False),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[ab].txt", "b.txt", True),
        ("[^ab].txt", "b.txt", False),
        ("[a-c]x", "bx", True),
        ("*\n!keep", "keep", False),
        ("*\n!keep", "other", True),
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("docs\n!docs/README.md", "docs/other.md", True),
        ("!x\nx", "x", True),
        ("# comment\n\nx", "x", True),
        ("\\#file", "#file", True),
        ("./x/../y", "y", True),
        ("a**b", "a/x/b", True),
    ],
)
def test_excludes(patterns, path, excluded):
    assert Ignore.parse(patterns).excludes(path) is excluded


@pytest.mark.parametrize("text", ["!", "[a", "[\U00000001-\U0010ffff]"])
def test_refuses(text):
    with pytest.raises(InvalidInput):
        Ignore.parse(text)


def test_hostile_patterns_take_linear_time():
    pattern = "/".join(["**", "a*a"] * 100) + "b"
    begin = time.monotonic()
    assert not Ignore.parse(pattern).excludes("/".join(["aaa"] * 30) + "/" + "a" * 200)
    assert time.monotonic() - begin < 5


@given(st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_any_pattern_on_any_path(pattern, path):
    try:
        ignore = Ignore.parse(pattern)
    except InvalidInput:
        return
    assert ignore.excludes(path) in (True, False)
