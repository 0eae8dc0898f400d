"""Tables as docker prints them: capitals for the heads, columns three spaces apart, no cell under ten columns."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MINIMUM = 10
GAP = 3


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], minimum: int = MINIMUM) -> str:
    """Lines without a newline at the end."""
    cells = [tuple(heads), *(tuple(row) for row in rows)]
    widths = [max(minimum, *(len(row[column]) + GAP for row in cells)) for column in range(len(heads) - 1)]
    lines = []
    for row in cells:
        left = "".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        lines.append((left + row[-1]).rstrip())
    return "\n".join(lines)
