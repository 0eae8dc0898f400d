"""Iterators in threads of their own: order, errors, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from atoll.images.ahead import ahead


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_all_pieces_in_order():
    pieces = [bytes([number]) * 3 for number in range(100)]
    with ahead(pieces, depth=2) as seen:
        assert list(seen) == pieces
    assert not running()


def test_what_the_iterator_raises_its_reader_gets():
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("the third bit")

    with ahead(broken()) as seen:
        assert next(seen) == b"one"
        with pytest.raises(ValueError, match="third bit"):
            next(seen)
    assert not running()


def test_a_reader_that_leaves_stops_it():
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x"

    def leave() -> None:
        with ahead(endless(), depth=3) as seen:
            next(seen)
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert not running()
    assert taken <= 6
