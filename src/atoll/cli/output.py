"""`--format` in one place: a table, a Go template for each row, `table TEMPLATE`, or `json`."""

from __future__ import annotations

from atoll.cli.quickjson import compact
from atoll.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FIELD = r"\{\{[^}]*?\.(\w+)[^}]*\}\}"


def show(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], form: str | None) -> None:
    """Print ROWS; COLUMNS are (head, key) of the default table. A row's keys are Docker's template fields."""
    if not form or form == "table":
        print(table([head for head, _ in columns], [[str(row[key]) for _, key in columns] for row in rows]))
    elif form == "json":
        for row in rows:
            print(compact({key: row[key] for key in sorted(row) if not callable(row[key])}))
    elif form.startswith("table "):
        _table(rows, columns, form[len("table ") :].strip())
    else:
        from atoll.cli.template import Template

        template = Template(_unescape(form))
        for row in rows:
            print(template.render(row))


def _unescape(form: str) -> str:
    return form.replace("\\t", "\t").replace("\\n", "\n")


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], form: str) -> None:
    import re

    from atoll.cli.template import Template

    heads = {key: head for head, key in columns}
    template = Template(_unescape(form))
    head = re.sub(FIELD, lambda match: heads.get(match[1], match[1].upper()), _unescape(form))
    print(table(head.split("\t"), [template.render(row).split("\t") for row in rows]))
