"""What may stand in a path: repository names, tags, digests (distribution-spec 1.1, "Pulling manifests").

A name is a key in a database and a digest a file's name, so both are checked whole before they are used as either.
"""

from __future__ import annotations

import re

from atoll.errors import InvalidInput
from atoll.images.reference import NAME_MAX, check_digest
from atoll.registry.errors import Code, Refused

_WORD = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_WORD}(?:/{_WORD})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
ALGORITHMS = ("sha256", "sha512")  # those that image-spec registers


def repository(name: str) -> str:
    """NAME as it is. Raises Refused NAME_INVALID."""
    if len(name) > NAME_MAX or not _REPOSITORY.fullmatch(name):
        raise Refused(Code.NAME_INVALID, "invalid repository name", detail={"name": name[: NAME_MAX + 1]})
    return name


def tag(text: str) -> str:
    """Raises Refused TAG_INVALID."""
    if not _TAG.fullmatch(text):
        raise Refused(Code.TAG_INVALID, "invalid tag: at most 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'")
    return text


def digest(text: str | None) -> str:
    """Raises Refused DIGEST_INVALID, also for an algorithm that is not kept here."""
    algorithm = (text or "").partition(":")[0]
    try:
        if algorithm not in ALGORITHMS:
            raise InvalidInput(f"a digest is one of {', '.join(ALGORITHMS)}, a colon and hex digits")
        return check_digest(text or "")
    except InvalidInput as error:
        raise Refused(Code.DIGEST_INVALID, f"invalid digest: {error}", detail={"digest": text}) from None


def algorithm_of(checked_digest: str) -> str:
    return checked_digest.partition(":")[0]


def is_digest_reference(reference: str) -> bool:
    """A manifest is asked for by tag or by digest; no tag holds a colon."""
    return ":" in reference
