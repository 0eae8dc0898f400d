"""Header fields and query parameters: ordered, repeated, looked up by name.

Both keep the pairs as they came and build an index only when first asked: most requests are answered after one or two look-ups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast
from urllib.parse import unquote_plus

TRUE_WORDS = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # what Go's strconv.ParseBool, and so Docker and Kubernetes, take as true


class Headers:
    """Header fields; names compare without case, and are kept as sent. Bytes pairs are decoded as latin-1 (RFC 9110, 5.5)."""

    __slots__ = ("_index", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] | Iterable[tuple[bytes, bytes]] = ()) -> None:
        # A list is taken as it is: the parser's own, which nobody else holds.
        self._pairs = cast("list[tuple[str, str]] | list[tuple[bytes, bytes]]", pairs if type(pairs) is list else list(pairs))
        self._index: dict[str, list[str]] | None = None

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value under the name."""
        values = (self._index or self._build()).get(name.lower())
        return values[0] if values else default

    def getall(self, name: str) -> list[str]:
        return list((self._index or self._build()).get(name.lower(), ()))

    def names(self) -> Iterable[str]:
        """Each name once, in lower case."""
        return self._index or self._build()

    def tokens(self, name: str) -> list[str]:
        """The comma-separated members of a list-valued field, over all its lines, trimmed (RFC 9110, 5.6.1)."""
        return [token for value in self.getall(name) for part in value.split(",") if (token := part.strip())]

    def items(self) -> Iterator[tuple[str, str]]:
        for name, value in self._pairs:
            if isinstance(name, bytes):
                yield name.decode("latin-1"), value.decode("latin-1")  # type: ignore[union-attr]
            else:
                yield name, value  # type: ignore[misc]

    def __contains__(self, name: str) -> bool:
        return name.lower() in (self._index or self._build())

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items())

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({list(self.items())!r})"

    def _build(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for name, value in self._pairs:
            if isinstance(name, bytes):
                index.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))  # type: ignore[union-attr]
            else:
                index.setdefault(name.lower(), []).append(value)  # type: ignore[arg-type]
        self._index = index
        return index


class Query:
    """The parameters after `?`, percent-decoded; `+` is a space. Undecodable bytes become U+FFFD."""

    __slots__ = ("_values", "raw")

    def __init__(self, raw: str = "") -> None:
        self.raw = raw
        values: dict[str, list[str]] = {}
        if raw:
            for pair in raw.split("&"):
                name, _, value = pair.partition("=")
                if pair:
                    values.setdefault(unquote_plus(name), []).append(unquote_plus(value))
        self._values = values

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value under the name; "" for a bare name."""
        values = self._values.get(name)
        return values[0] if values else default

    def getall(self, name: str) -> list[str]:
        return list(self._values.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """True for the words Go's ParseBool takes as true; `default` when the parameter is absent or empty."""
        value = self.get(name)
        return value in TRUE_WORDS if value else default

    def items(self) -> Iterator[tuple[str, str]]:
        return ((name, value) for name, values in self._values.items() for value in values)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __repr__(self) -> str:
        return f"Query({self.raw!r})"
