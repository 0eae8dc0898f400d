import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import InvalidInput
from atoll.units import parse_bytes, parse_duration, parse_quantity, timestamp, timestamp_micro, timestamp_seconds


@pytest.mark.parametrize(("text", "value"), [("512", 512), ("64m", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30), ("1kb", 1024)])
def test_parse_bytes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1.2.3", "１"])
def test_parse_bytes_refuses(text):
    with pytest.raises(InvalidInput):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "value"), [("10s", 10**10), ("1m30s", 90 * 10**9), ("1.5ms", 1_500_000), ("-2s", -2 * 10**9), ("0", 0)])
def test_parse_duration(text, value):
    assert parse_duration(text) == value


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1s2", "--1s"])
def test_parse_duration_refuses(text):
    with pytest.raises(InvalidInput):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", "0.1"),
        ("1.5Gi", str(3 << 29)),
        ("1e3", "1000"),
        ("2E", "2000000000000000000"),
        (2, "2"),
        ("5n", "5e-9"),
    ],
)
def test_parse_quantity(text, value):
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "1e999999999", "1..2", "１", "1mi", "x"])
def test_parse_quantity_refuses(text):
    with pytest.raises(InvalidInput):
        parse_quantity(text)


@given(st.text(max_size=30))
def test_parsers_never_raise_anything_else(text):
    for parse in (parse_bytes, parse_duration, parse_quantity):
        with contextlib.suppress(InvalidInput):
            parse(text)


def test_timestamps():
    assert timestamp(1_500_000_000_123_456_789) == "2017-07-14T02:40:00.123456789Z"
    assert timestamp_micro(1_500_000_000_123_456_789) == "2017-07-14T02:40:00.123456Z"
    assert timestamp_seconds(1_500_000_000.9) == "2017-07-14T02:40:00Z"
