"""Whatever comes as a manifest, a range or a name is taken or refused: nothing else happens."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from atoll.registry import manifests, names, ranges
from atoll.registry.errors import Refused
from registry_harness import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)
types = st.sampled_from([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX, "text/plain"])
pointers = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": values | types,
        "digest": values | st.just(digest_of(b"x")),
        "size": values | st.integers(0, 9),
        "urls": values | st.just(["https://a"]),
    },
)
documents = st.fixed_dictionaries(
    {"schemaVersion": st.just(2)},
    optional={
        "mediaType": types | values,
        "config": pointers | values,
        "layers": st.lists(pointers | values, max_size=3) | values,
        "manifests": st.lists(pointers, max_size=3) | values,
        "subject": pointers | values,
        "artifactType": values,
        "annotations": st.dictionaries(st.text(max_size=4), st.text(max_size=4)) | values,
    },
)


@given(documents, types | st.none() | st.text(max_size=10))
def test_documents(value: dict, content_type: str | None):
    with contextlib.suppress(Refused):
        document = manifests.read(json.dumps(value).encode(), content_type)
        assert all(names.digest(pointer.digest) for pointer in document.pointers)
        json.loads(document.referrer(digest_of(b""), 0))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_document(body: bytes):
    with contextlib.suppress(Refused):
        manifests.read(body, OCI_MANIFEST)


@given(st.text(max_size=30) | st.from_regex(r"(bytes[= ])?[0-9]*-[0-9]*(/[0-9]*)?", fullmatch=True), st.integers(0, 1 << 40))
def test_ranges(header: str, size: int):
    with contextlib.suppress(Refused):
        part = ranges.asked(header, size)
        assert part is None or (part.start >= 0 and part.length > 0 and part.start + part.length <= size)
    with contextlib.suppress(Refused):
        part = ranges.sent(header)
        assert part is None or (part.start >= 0 and part.length > 0)


@given(st.text(max_size=40) | st.from_regex(r"[a-z0-9./_-]{1,40}", fullmatch=True))
def test_names(text: str):
    with contextlib.suppress(Refused):
        name = names.repository(text)
        assert ".." not in name
        assert "//" not in name
        assert name.isascii()
    with contextlib.suppress(Refused):
        assert "/" not in names.tag(text)
    with contextlib.suppress(Refused):
        assert "/" not in names.digest(text)
