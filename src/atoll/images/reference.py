"""Image references as Docker reads them.

A user writes "debian"; the store and registries know "docker.io/library/debian:latest". The grammar is that of distribution's `reference`
package (the one every client and registry shares); messages are Docker's, since scripts match on them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from atoll.errors import InvalidInput

DEFAULT_DOMAIN = "docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
NAME_MAX = 255  # distribution-spec: many stores cannot hold more

_ALNUM = r"[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:[._]|__|[-]+){_ALNUM})*"
_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"(?P<name>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_SHORT_ID = re.compile(r"[a-f0-9]{1,64}")
_SHA256 = re.compile(r"sha256:[a-f0-9]{64}")
_HEX_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True)
class Reference:
    """`domain` and `path` are always there ("docker.io", "library/debian"); tag and digest as written."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """What users write: "debian", "user/app", "ghcr.io/user/app"."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL)
        if "/" not in short:
            return short
        # A user called "a.b" would read as a host.
        return self.path if _split_domain(self.path)[0] == DEFAULT_DOMAIN else self.name

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at `tag` and no digest. Raises InvalidInput."""
        if not re.fullmatch(_TAG, tag):
            raise InvalidInput(f"invalid tag format: {tag!r}")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Reference:
        return Reference(self.domain, self.path, None, check_digest(digest))


def parse(text: str) -> Reference:
    """The reference `text` means, normalised but without a default tag. Raises InvalidInput with Docker's words."""
    if _IDENTIFIER.fullmatch(text):
        raise InvalidInput(f"invalid reference format: invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    repository = remainder.split(":", 1)[0]
    if repository != repository.lower():
        raise InvalidInput(f"invalid reference format: repository name ({repository}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    # The grammar could read a bad domain as a first path component; it must come back as it was split.
    if not match or not match["name"].startswith(domain + "/"):
        raise InvalidInput("invalid reference format")
    path = match["name"][len(domain) + 1 :]
    if not re.fullmatch(_DOMAIN, domain):
        raise InvalidInput("invalid reference format")
    if len(path) > NAME_MAX:
        raise InvalidInput(f"repository name must not be more than {NAME_MAX} characters")
    if match["digest"]:
        check_digest(match["digest"])
    return Reference(domain, path, match["tag"], match["digest"])


def parse_canonical(text: str) -> Reference:
    """Reads back what `str(reference)` wrote, as the database holds it; no rules are applied."""
    domain, _, rest = text.partition("/")
    rest, _, digest = rest.partition("@")
    path, _, tag = rest.partition(":")
    return Reference(domain, path, tag or None, digest or None)


def check_digest(text: str) -> str:
    """`text` where it is a well-formed digest. Raises InvalidInput."""
    algorithm, _, digits = text.partition(":")
    length = _HEX_LENGTHS.get(algorithm)
    if length is None:
        raise InvalidInput("unsupported digest algorithm")
    if len(digits) != length:
        raise InvalidInput("invalid checksum digest length")
    if not re.fullmatch(r"[a-f0-9]+", digits):
        raise InvalidInput("invalid checksum digest format")
    return text


def is_digest(text: str) -> bool:
    """Whether content of this digest can be stored here: a whole, lower-case sha256."""
    return _SHA256.fullmatch(text) is not None


def id_prefix(text: str) -> str | None:
    """The hex digits where `text` can be an image id or the start of one ("sha256:ab12", "ab12"), else None."""
    digits = text.removeprefix("sha256:")
    return digits if _SHORT_ID.fullmatch(digits) else None


def _split_domain(text: str) -> tuple[str, str]:
    """The registry host rule: the first component is a host where it holds '.' or ':', is localhost, or has a capital letter."""
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = OFFICIAL + remainder
    return domain, remainder
