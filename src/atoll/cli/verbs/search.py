"""`search`: images of Docker Hub."""

from __future__ import annotations

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.output import show
from atoll.cli.session import engine, filters

COLUMNS = (("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial"))
DESCRIPTION = 45  # columns


def search() -> Command:
    flags = (
        Flag("filter", "f", "list", "Filter output based on conditions provided", "filter"),
        Flag("format", "", "string", "Pretty-print search using a Go template"),
        Flag("limit", "", "int", "Max number of search results"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    )
    return Command(_search, "[OPTIONS] TERM", "Search Docker Hub for images", flags, minimum=1, maximum=1)


def _search(options: Options, words: list[str]) -> int:
    query = {"term": words[0], "limit": options["limit"] or None, "filters": filters(options["filter"])}
    rows = []
    for found in engine().get("/images/search", query):
        text = " ".join(found["description"].split())
        if not options["no-trunc"] and len(text) > DESCRIPTION:
            text = text[: DESCRIPTION - 1] + "…"
        rows.append(
            {
                "Name": found["name"],
                "Description": text,
                "StarCount": str(found["star_count"]),
                "IsOfficial": "[OK]" if found["is_official"] else "",
            }
        )
    show(rows, COLUMNS, options["format"])
    return 0
