"""Build arguments: what --build-arg gives, what ARG declares, and the names every build knows (Docker reference, "ARG").

ARGs above the first FROM are global: they serve FROM lines, and give a value to an ARG of the same name within a stage. A build argument
that no ARG asks for is named at the end.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping

from atoll.build.syntax import Dockerfile, DockerfileError, Instruction
from atoll.build.words import Expander, split_words
from atoll.errors import InvalidInput
from atoll.images import Platform

PROXIES = frozenset(name for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy") for name in (word, word.upper()))
EPOCH = "SOURCE_DATE_EPOCH"
SYNTAX = "BUILDKIT_SYNTAX"
CHECK = "BUILDKIT_DOCKERFILE_CHECK"
KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
INLINE_CACHE = "BUILDKIT_INLINE_CACHE"
# Taken by the builder itself, with no ARG to ask for them.
PREDEFINED = PROXIES | {EPOCH, SYNTAX, CHECK, KEEP_GIT, CACHE_NAMESPACE, INLINE_CACHE}


class Arguments:
    """The arguments of one build of FILE, with GIVEN from the client (None: named without a value)."""

    def __init__(self, file: Dockerfile, given: Mapping[str, str | None]) -> None:
        self._escape = file.escape
        self._given = given
        self._unused = {name for name in given if name not in PREDEFINED}
        self.platform = platform_arguments()
        self.globals: dict[str, str] = dict(self.platform)
        for instruction in file.arguments:
            self._assign(instruction, self.globals, {})

    def declared(self, instruction: Instruction, known: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
        """KNOWN after an ARG within a stage. Raises InvalidInput."""
        found = dict(known)
        self._assign(instruction, found, environment)
        return found

    def _assign(self, instruction: Instruction, known: dict[str, str], environment: Mapping[str, str]) -> None:
        """One by one into KNOWN, since a later word of the same ARG may use an earlier one."""
        for name, default in argument_words(instruction, Expander(ChainMap(dict(environment), known), self._escape)):
            self._unused.discard(name)
            given = self._given.get(name)
            value = given if given is not None else default if default is not None else self.globals.get(name)
            if value is not None:
                known[name] = value

    def is_given(self, name: str) -> bool:
        """Whether the client gives it a value."""
        return self._given.get(name) is not None

    @property
    def proxies(self) -> dict[str, str]:
        """Proxies are a step's surroundings, not the image's content: they are no part of any key or history."""
        return {name: value for name, value in self._given.items() if name in PROXIES and value is not None}

    @property
    def cache_namespace(self) -> str:
        return self._given.get(CACHE_NAMESPACE) or ""

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH in seconds: no file or image is younger (reproducible-builds.org). Raises InvalidInput."""
        text = self._given.get(EPOCH) or self.globals.get(EPOCH)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 12):
            raise InvalidInput(f"invalid {EPOCH}: {text}: it must be a number of seconds since 1970")
        return int(text)

    @property
    def unused(self) -> list[str]:
        return sorted(self._unused)


def argument_words(instruction: Instruction, expander: Expander) -> Iterator[tuple[str, str | None]]:
    """The names an ARG declares, with their defaults. Raises DockerfileError."""
    try:
        for raw in split_words(instruction.text, expander.escape):
            word = expander.word(raw)
            name, equals, value = word.partition("=")
            if not name:
                raise InvalidInput("ARG names can not be blank")
            yield name, value if equals else None
    except DockerfileError:
        raise
    except InvalidInput as error:
        raise DockerfileError(instruction.line, str(error)) from error


def platform_arguments() -> dict[str, str]:
    """The platform ARGs, for building and target platform alike (Docker reference, "Automatic platform ARGs")."""
    platform = Platform.of_host()
    values = {"PLATFORM": str(platform), "OS": platform.os, "ARCH": platform.architecture, "VARIANT": platform.variant}
    return {f"{prefix}{name}": value for prefix in ("TARGET", "BUILD") for name, value in values.items()}
