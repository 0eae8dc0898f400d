from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.apiserver.machinery.quantities import canonical
from atoll.errors import InvalidInput
from atoll.units import parse_quantity


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("1000M", "1G"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12E", "9223372036854775807"),
        ("1E", "1E"),
        ("0", "0"),
        ("0Gi", "0"),
        ("-5", "-5"),
        ("2048", "2048"),
        ("0.1m", "100u"),
        ("1e999", "9223372036854775807"),
        ("-1e999", "-9223372036854775807"),
        ("1e-999", "1e-9"),
        ("0.12345678912345678912345678", "123456790n"),
    ],
)
def test_canonical_forms(text: str, form: str) -> None:
    assert canonical(text) == form


@pytest.mark.parametrize("text", ["", "x", "1 Gi", " 1", "1GiB", "1.2.3", "--1", "1" * 100])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(InvalidInput):
        canonical(text)


@given(st.integers(-(10**6), 10**6), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3"]))
def test_the_canonical_form_has_the_same_value_and_is_stable(number: int, suffix: str) -> None:
    form = canonical(f"{number}{suffix}")
    assert parse_quantity(form) == parse_quantity(f"{number}{suffix}")
    assert canonical(form) == form


@given(st.from_regex(r"[+-]?[0-9.]{1,40}([eE][+-]?[0-9]{1,3}|[KMGTPE]i|[numkMGTPE]?)", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        form = canonical(text)
    except InvalidInput:
        return
    assert canonical(form) == form
    assert len(form) <= 30
