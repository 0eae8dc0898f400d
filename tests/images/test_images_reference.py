"""Names as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import InvalidInput
from atoll.images.reference import Reference, id_prefix, is_digest, parse, parse_canonical

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:bookworm", "docker.io/library/debian:bookworm", "debian:bookworm"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian", "docker.io/library/debian", "debian"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("docker.io/user/app:1", "docker.io/user/app:1", "user/app:1"),
        ("library/user/app", "docker.io/library/user/app", "library/user/app"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("ghcr.io/a/b/c", "ghcr.io/a/b/c", "ghcr.io/a/b/c"),
        ("Host/app", "Host/app", "Host/app"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app", "127.0.0.1:5000/app"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
        ("a__b", "docker.io/library/a__b", "a__b"),
        ("a--b.c_d", "docker.io/library/a--b.c_d", "a--b.c_d"),
    ],
)
def test_normalisation(text: str, canonical: str, familiar: str):
    reference = parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("/a", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a:-tag", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("http://a/b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("débian", "invalid reference format"),
        ("Debian", r"invalid reference format: repository name \(library/Debian\) must be lowercase"),
        ("user/App:1", r"repository name \(user/App\) must be lowercase"),
        ("a" * 300, "must not be more than 255 characters"),
        ("0" * 64, "cannot specify 64-byte hexadecimal strings"),
        ("a@sha256:" + "0" * 32, "invalid checksum digest length"),
        ("a@md5:" + "0" * 32, "unsupported digest algorithm"),
        ("a@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("../etc/passwd", "invalid reference format"),
    ],
)
def test_refusals(text: str, message: str):
    with pytest.raises(InvalidInput, match=message):
        parse(text)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str):
    try:
        reference = parse(text)
    except InvalidInput:
        return
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference
    assert parse_canonical(str(reference)) == reference


component = st.from_regex(r"[a-z0-9]{1,5}(?:[._-][a-z0-9]{1,3})?", fullmatch=True)


@given(
    domain=st.sampled_from(["docker.io", "ghcr.io", "localhost", "localhost:5000", "10.0.0.1:80"]),
    parts=st.lists(component, min_size=2, max_size=4),
    tag=st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
    digest=st.none() | st.just(DIGEST),
)
def test_what_is_written_reads_back(domain: str, parts: list[str], tag: str | None, digest: str | None):
    reference = Reference(domain, "/".join(parts), tag, digest)
    assert parse(str(reference)) == reference
    assert parse(reference.familiar) == reference


def test_default_tag_only_where_nothing_is_named():
    assert parse("a").with_default_tag().tag == "latest"
    assert parse("a:1").with_default_tag().tag == "1"
    assert parse(f"a@{DIGEST}").with_default_tag().tag is None


def test_ids():
    assert id_prefix("ab12") == "ab12"
    assert id_prefix("sha256:ab12") == "ab12"
    assert id_prefix("xyz") is None
    assert is_digest(DIGEST)
    assert not is_digest("sha256:../../etc")
