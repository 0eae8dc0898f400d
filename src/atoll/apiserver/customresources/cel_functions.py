"""The functions Kubernetes adds to CEL: lists, regular expressions, URLs, quantities, addresses and networks.

A quantity, URL, address or network is a map inside, for the library's Python door has no types of one's own; rules see its functions.
"""

from __future__ import annotations

import ipaddress
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

from atoll.apiserver.customresources.patterns import Pattern
from atoll.errors import InvalidInput
from atoll.units import parse_quantity

_QUANTITY, _URL, _IP, _CIDR = "quantity", "url", "ip", "cidr"


class _Library:
    """Declares overloads by the shorthand of their types."""

    def __init__(self, cel: Any) -> None:
        types = cel.Type
        self.cel = cel
        self.any, self.text, self.truth, self.number, self.real = types.DYN, types.STRING, types.BOOL, types.INT, types.DOUBLE
        self.opaque = types.MAP  # at run time an overload is found by the value's own type: DYN would match none
        self.items, self.texts = types.List(types.DYN), types.List(types.STRING)

    def declare(self, name: str, *overloads: tuple[Any, list[Any], Any], member: bool = True) -> Any:
        made = [
            self.cel.Overload(f"kubernetes_{name}_{index}", returns, takes, member, implementation)
            for index, (returns, takes, implementation) in enumerate(overloads)
        ]
        return self.cel.FunctionDecl(name, made)


def declarations(cel: Any) -> tuple[Any, ...]:
    library = _Library(cel)
    return (*_lists_and_texts(library), *_urls(library), *_quantities(library), *_addresses(library))


def _lists_and_texts(library: _Library) -> tuple[Any, ...]:
    any_, text, truth, number, declare = library.any, library.text, library.truth, library.number, library.declare
    items, texts = library.items, library.texts
    return (
        declare("isSorted", (truth, [items], lambda values: all(a <= b for a, b in pairwise(values)))),
        declare("sum", (any_, [items], sum)),
        declare("min", (any_, [items], min)),
        declare("max", (any_, [items], max)),
        declare("find", (text, [text, text], _find)),
        declare("findAll", (texts, [text, text], _find_all), (texts, [text, text, number], _find_all)),
    )


def _urls(library: _Library) -> tuple[Any, ...]:
    text, truth, opaque, declare = library.text, library.truth, library.opaque, library.declare
    return (
        declare("isURL", (truth, [text], lambda value: _is(_url, value)), member=False),
        declare("url", (opaque, [text], _url), member=False),
        declare("getScheme", (text, [opaque], lambda url: urlsplit(url[_URL]).scheme)),
        declare("getHost", (text, [opaque], lambda url: urlsplit(url[_URL]).netloc.rpartition("@")[2])),
        declare("getHostname", (text, [opaque], lambda url: urlsplit(url[_URL]).hostname or "")),
        declare("getPort", (text, [opaque], lambda url: str(urlsplit(url[_URL]).port or ""))),
        declare("getEscapedPath", (text, [opaque], lambda url: urlsplit(url[_URL]).path)),
        declare("getQuery", (opaque, [opaque], lambda url: parse_qs(urlsplit(url[_URL]).query))),
    )


def _quantities(library: _Library) -> tuple[Any, ...]:
    text, truth, number, real, opaque, declare = library.text, library.truth, library.number, library.real, library.opaque, library.declare
    return (
        declare("isQuantity", (truth, [text], lambda value: _is(_quantity, value)), member=False),
        declare("quantity", (opaque, [text], _quantity), member=False),
        declare("isInteger", (truth, [opaque], lambda q: _exact(q) == _exact(q).to_integral_value())),
        declare("asInteger", (number, [opaque], lambda q: int(_exact(q)))),
        declare("asApproximateFloat", (real, [opaque], lambda q: float(_exact(q)))),
        declare("sign", (number, [opaque], lambda q: (_exact(q) > 0) - (_exact(q) < 0))),
        declare("isGreaterThan", (truth, [opaque, opaque], lambda a, b: _exact(a) > _exact(b))),
        declare("isLessThan", (truth, [opaque, opaque], lambda a, b: _exact(a) < _exact(b))),
        declare("compareTo", (number, [opaque, opaque], lambda a, b: (_exact(a) > _exact(b)) - (_exact(a) < _exact(b)))),
        declare("add", *(((opaque, [opaque, other], lambda a, b: _plus(a, b, 1))) for other in (opaque, number))),
        declare("sub", *(((opaque, [opaque, other], lambda a, b: _plus(a, b, -1))) for other in (opaque, number))),
    )


def _addresses(library: _Library) -> tuple[Any, ...]:
    text, truth, number, opaque, declare = library.text, library.truth, library.number, library.opaque, library.declare
    return (
        declare("isIP", (truth, [text], lambda value: _is(_ip, value)), member=False),
        declare("isCIDR", (truth, [text], lambda value: _is(_cidr, value)), member=False),
        library.cel.FunctionDecl(
            "ip",
            [
                library.cel.Overload("kubernetes_ip_text", opaque, [text], False, _ip),
                library.cel.Overload("kubernetes_ip_cidr", opaque, [opaque], True, lambda cidr: {_IP: str(_network(cidr).network_address)}),
            ],
        ),
        declare("cidr", (opaque, [text], _cidr), member=False),
        declare("family", (number, [opaque], lambda value: _address(value).version)),
        declare("isLoopback", (truth, [opaque], lambda value: _address(value).is_loopback)),
        declare("isUnspecified", (truth, [opaque], lambda value: _address(value).is_unspecified)),
        declare("isGlobalUnicast", (truth, [opaque], lambda value: not (_address(value).is_multicast or _address(value).is_loopback))),
        declare(
            "containsIP", *((truth, [opaque, other], lambda cidr, value: _address(value) in _network(cidr)) for other in (opaque, text))
        ),
        declare(
            "containsCIDR",
            *((truth, [opaque, other], lambda outer, inner: _network(inner).subnet_of(_network(outer))) for other in (opaque, text)),
        ),
        declare("prefixLength", (number, [opaque], lambda cidr: _network(cidr).prefixlen)),
        declare("masked", (opaque, [opaque], lambda cidr: {_CIDR: str(_network(cidr))})),
    )


def _is(parse: Any, value: str) -> bool:
    try:
        parse(value)
    except (ValueError, InvalidInput):
        return False
    return True


def _find(value: str, pattern: str) -> str:
    return next(iter(Pattern(pattern).found(value)), "")


def _find_all(value: str, pattern: str, limit: int = -1) -> list[str]:
    found = Pattern(pattern).found(value)
    return found if limit < 0 else found[:limit]


def _url(value: str) -> dict[str, str]:
    parts = urlsplit(value)
    if not parts.scheme and not value.startswith("/"):
        raise ValueError(f"URL parse error during conversion from string: parse {value!r}: invalid URI for request")
    return {_URL: value}


def _quantity(value: str) -> dict[str, str]:
    return {_QUANTITY: str(parse_quantity(value))}


def _exact(value: Any) -> Decimal:
    return Decimal(value[_QUANTITY])


def _plus(a: Any, b: Any, sign: int) -> dict[str, str]:
    other = Decimal(b) if isinstance(b, int) else _exact(b)
    return {_QUANTITY: str(_exact(a) + sign * other)}


def _ip(value: str) -> dict[str, str]:
    return {_IP: str(ipaddress.ip_address(value))}


def _cidr(value: str) -> dict[str, str]:
    ipaddress.ip_network(value, strict=False)
    return {_CIDR: value}


def _address(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(value[_IP] if isinstance(value, dict) else value)


def _network(value: Any) -> Any:
    return ipaddress.ip_network(value[_CIDR] if isinstance(value, dict) else value, strict=False)
