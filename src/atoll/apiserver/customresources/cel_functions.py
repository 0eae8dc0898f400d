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


def declarations(cel: Any) -> tuple[Any, ...]:
    types = cel.Type
    any_, text, truth, number, real = types.DYN, types.STRING, types.BOOL, types.INT, types.DOUBLE
    opaque = types.MAP  # at run time an overload is found by the value's own type: DYN would match none
    items = types.List(any_)

    def function(name: str, *overloads: tuple[Any, list[Any], Any], member: bool = True) -> Any:
        made = [
            cel.Overload(f"kubernetes_{name}_{index}", returns, takes, member, implementation)
            for index, (returns, takes, implementation) in enumerate(overloads)
        ]
        return cel.FunctionDecl(name, made)

    return (
        function("isSorted", (truth, [items], lambda values: all(a <= b for a, b in pairwise(values)))),
        function("sum", (any_, [items], sum)),
        function("min", (any_, [items], min)),
        function("max", (any_, [items], max)),
        function("find", (text, [text, text], _find)),
        function("findAll", (types.List(text), [text, text], _find_all), (types.List(text), [text, text, number], _find_all)),
        function("isURL", (truth, [text], lambda value: _is(_url, value)), member=False),
        function("url", (opaque, [text], _url), member=False),
        function("getScheme", (text, [opaque], lambda url: urlsplit(url[_URL]).scheme)),
        function("getHost", (text, [opaque], lambda url: urlsplit(url[_URL]).netloc.rpartition("@")[2])),
        function("getHostname", (text, [opaque], lambda url: urlsplit(url[_URL]).hostname or "")),
        function("getPort", (text, [opaque], lambda url: str(urlsplit(url[_URL]).port or ""))),
        function("getEscapedPath", (text, [opaque], lambda url: urlsplit(url[_URL]).path)),
        function("getQuery", (opaque, [opaque], lambda url: parse_qs(urlsplit(url[_URL]).query))),
        function("isQuantity", (truth, [text], lambda value: _is(_quantity, value)), member=False),
        function("quantity", (opaque, [text], _quantity), member=False),
        function("isInteger", (truth, [opaque], lambda q: _exact(q) == _exact(q).to_integral_value())),
        function("asInteger", (number, [opaque], lambda q: int(_exact(q)))),
        function("asApproximateFloat", (real, [opaque], lambda q: float(_exact(q)))),
        function("sign", (number, [opaque], lambda q: (_exact(q) > 0) - (_exact(q) < 0))),
        function("isGreaterThan", (truth, [opaque, opaque], lambda a, b: _exact(a) > _exact(b))),
        function("isLessThan", (truth, [opaque, opaque], lambda a, b: _exact(a) < _exact(b))),
        function("compareTo", (number, [opaque, opaque], lambda a, b: (_exact(a) > _exact(b)) - (_exact(a) < _exact(b)))),
        function("add", *(((opaque, [opaque, other], lambda a, b: _plus(a, b, 1))) for other in (opaque, number))),
        function("sub", *(((opaque, [opaque, other], lambda a, b: _plus(a, b, -1))) for other in (opaque, number))),
        function("isIP", (truth, [text], lambda value: _is(_ip, value)), member=False),
        function("isCIDR", (truth, [text], lambda value: _is(_cidr, value)), member=False),
        cel.FunctionDecl(
            "ip",
            [
                cel.Overload("kubernetes_ip_text", opaque, [text], False, _ip),
                cel.Overload("kubernetes_ip_cidr", opaque, [opaque], True, lambda cidr: {_IP: str(_network(cidr).network_address)}),
            ],
        ),
        function("cidr", (opaque, [text], _cidr), member=False),
        function("family", (number, [opaque], lambda value: _address(value).version)),
        function("isLoopback", (truth, [opaque], lambda value: _address(value).is_loopback)),
        function("isUnspecified", (truth, [opaque], lambda value: _address(value).is_unspecified)),
        function("isGlobalUnicast", (truth, [opaque], lambda value: not (_address(value).is_multicast or _address(value).is_loopback))),
        function(
            "containsIP", *((truth, [opaque, other], lambda cidr, value: _address(value) in _network(cidr)) for other in (opaque, text))
        ),
        function(
            "containsCIDR",
            *((truth, [opaque, other], lambda outer, inner: _network(inner).subnet_of(_network(outer))) for other in (opaque, text)),
        ),
        function("prefixLength", (number, [opaque], lambda cidr: _network(cidr).prefixlen)),
        function("masked", (opaque, [opaque], lambda cidr: {_CIDR: str(_network(cidr))})),
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
