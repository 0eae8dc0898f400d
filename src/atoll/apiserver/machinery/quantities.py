"""Quantities in their canonical form, which is how upstream's encoder writes them back: "0.5" is "500m", "1024Mi" is "1Gi", 1 is "1".

The rule (apimachinery, resource.Quantity.String): no precision is lost, no fraction is shown, the exponent is as large as it can be; binary
suffixes below 1024 become decimal ones; nothing is finer than nano.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal
from functools import lru_cache

from atoll.errors import InvalidInput
from atoll.units import parse_quantity

_DECIMAL = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_MAX = Decimal(2**63 - 1)  # 19 digits; with nine more behind the point, within the 28 of the default decimal context
_NANO = Decimal("1e-9")


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The canonical form of a quantity's text. Raises InvalidInput."""
    if text.strip() != text or len(text) > 64:
        raise InvalidInput("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    value = max(min(parse_quantity(text), _MAX), -_MAX)
    value = value.quantize(_NANO, rounding=ROUND_UP) if value != value.to_integral_value() else value
    if text[-1] == "i" and abs(value) >= 1024:
        return _binary(value)
    number, exponent = _engineering(value)
    if text.strip("+-0123456789.")[:1] in ("e", "E") and text[-1] != "E":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL[exponent]}"


def _binary(value: Decimal) -> str:
    number, power = int(value.to_integral_value(rounding=ROUND_UP)), 0
    while number % 1024 == 0 and power < len(_BINARY) - 1:
        number //= 1024
        power += 1
    return f"{number}{_BINARY[power]}"


def _engineering(value: Decimal) -> tuple[int, int]:
    """A whole number and a power of ten that is a multiple of three, as large as it can be."""
    if not value:
        return 0, 0
    number, exponent = int(value.scaleb(9)), -9
    while number % 1000 == 0 and exponent < 18:
        number //= 1000
        exponent += 3
    return number, exponent
