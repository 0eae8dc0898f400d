"""Bodies good and hostile: duplicates are named, bombs are refused, protobuf says what JSON says."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.apiserver.machinery.decode import decode
from atoll.apiserver.machinery.protobuf import decode_protobuf
from atoll.apiserver.machinery.selectors import Selector, label_selector_of, parse_fields, parse_labels
from atoll.errors import StatusError

JSON = "application/json"
YAML = "application/yaml"


def test_duplicate_fields_are_named_with_their_path():
    body = b'{"a":1,"m":{"x":1,"x":2},"l":[{"y":1,"y":2}],"a":2}'
    decoded = decode(body, JSON, find_duplicates=True)
    assert decoded.value["a"] == 2
    assert set(decoded.duplicates) == {'duplicate field "a"', 'duplicate field "m.x"', 'duplicate field "l[0].y"'}


@given(st.recursive(st.text() | st.integers(0, 9), lambda c: st.dictionaries(st.text(), c) | st.lists(c), max_leaves=10))
def test_nothing_is_a_duplicate_that_is_none(value):
    for separators in ((",", ":"), (", ", ": "), (" , ", " : ")):
        assert decode(json.dumps({"v": value}, separators=separators).encode(), JSON, find_duplicates=True).duplicates == ()


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"{", JSON),
        (b'{"a":' * 300 + b"1" + b"}" * 300, JSON),
        (b"[" * 100_000, JSON),
        (
            b"a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("c"), ord("k"))),
            YAML,
        ),
        (b"a: &a\n  b: *a\n", YAML),
        (b"!!python/object/apply:os.system ['true']\n", YAML),
        (b"a: [\n", YAML),
        (b"\xff\xff", YAML),
        (b"k8s\0" + b"\xff" * 50, "application/vnd.kubernetes.protobuf"),
        (b"k8s\0" + b"\x0a\x05ab", "application/vnd.kubernetes.protobuf"),
        (b"junk", "application/vnd.kubernetes.protobuf"),
    ],
)
def test_what_cannot_be_read_is_a_400(body, media):
    with pytest.raises(StatusError) as refused:
        decode(body, media)
    assert refused.value.code == 400


def test_unknown_media_are_a_415():
    with pytest.raises(StatusError) as refused:
        decode(b"", "application/cbor")
    assert refused.value.code == 415


def test_yaml_keeps_dates_as_text_and_names_duplicate_lines():
    decoded = decode(b"a: 2020-01-01\nb: yes\nb: no\n", YAML)
    assert decoded.value == {"a": "2020-01-01", "b": False}
    assert decoded.duplicates == ('line 3: key "b" already set in map',)


def _field(number: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _unknown(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + _field(1, _field(1, api_version) + _field(2, kind)) + _field(2, raw)


def test_protobuf_keeps_an_optional_zero_and_drops_a_plain_one():
    metadata = _field(1, "web") + _field(2, "") + _field(7, 0) + _field(8, b"") + _field(11, _field(1, "app") + _field(2, "x"))
    rolling = _field(1, _field(1, 1) + _field(2, 0) + _field(3, "25%"))
    spec = _field(1, 0) + _field(4, _field(1, "RollingUpdate") + _field(2, rolling)) + _field(5, 0)
    decoded = decode_protobuf(_unknown("apps/v1", "Deployment", _field(1, metadata) + _field(2, spec)))
    assert decoded["metadata"] == {"name": "web", "labels": {"app": "x"}}
    assert decoded["spec"] == {
        "replicas": 0,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}},
    }


def test_protobuf_puts_inlined_messages_beside():
    volume = _field(1, "v") + _field(2, _field(2, _field(1, "")))  # volumeSource { emptyDir { medium "" } }
    decoded = decode_protobuf(_unknown("v1", "Pod", _field(2, _field(1, volume))))
    assert decoded["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


@given(st.binary(max_size=60))
def test_no_protobuf_makes_it_fall(raw):
    with contextlib.suppress(StatusError):
        decode_protobuf(_unknown("v1", "Pod", raw))


def test_negative_numbers():
    decoded = decode_protobuf(_unknown("v1", "Pod", _field(2, _field(25, -7))))
    assert decoded["spec"]["priority"] == -7


LABELS = {"app": "web", "tier": "front", "n": "5"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("app=web", True),
        ("app==web,tier!=back", True),
        ("app in (web, db)", True),
        ("app notin (web)", False),
        ("none notin (x)", True),
        ("tier", True),
        ("!tier", False),
        ("!none", True),
        ("n>4", True),
        ("n<5", False),
        ("app=", False),
        ("none=", False),
        ("example.com/x in ()", False),
    ],
)
def test_label_selectors(text, matches):
    assert Selector(parse_labels(text)).matches({"metadata": {"labels": LABELS}}) is matches


@pytest.mark.parametrize(
    "text", ["a=b,", ",a", "a in b", "a in (b", "=b", "a=b c", "a!", "-a=b", "a=b/c", "n>x", "a" * 20_000, "!", "a in (b c)"]
)
def test_label_selectors_that_are_none(text):
    with pytest.raises(StatusError) as refused:
        parse_labels(text)
    assert refused.value.code == 400


@given(st.text("a=!,() in<>", max_size=30))
def test_any_selector_is_read_or_refused(text):
    with contextlib.suppress(StatusError):
        Selector(parse_labels(text)).matches({"metadata": {}})


def test_field_selectors():
    (first, second) = parse_fields(r"metadata.name=a\,b,status.phase!=Running")
    assert (first.field, first.value, first.equal) == ("metadata.name", "a,b", True)
    assert (second.value, second.equal) == ("Running", False)
    with pytest.raises(StatusError):
        parse_fields("nonsense")


def test_label_selector_objects():
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
    assert Selector(label_selector_of(selector)).matches({"metadata": {"labels": LABELS}})


def test_protobuf_lists_are_lists_whatever_their_tag_says():
    taints = _field(5, _field(1, b"a")) + _field(5, _field(1, b"b"))
    decoded = decode_protobuf(_unknown("v1", "Node", _field(2, taints + _field(7, b"10.0.0.0/24"))))
    assert [taint["key"] for taint in decoded["spec"]["taints"]] == ["a", "b"]
    assert decoded["spec"]["podCIDRs"] == ["10.0.0.0/24"]
