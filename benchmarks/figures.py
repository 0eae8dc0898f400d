"""What `make bench` measures, the target of each figure, and the table of medians.

A target is an absolute limit, a ratio to Docker measured in the same run, or both. Ratios are Atoll's median over the peer's; times and
memory should lie below 1, rates above. Absolute times move with the machine and what else it does; ratios hold.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

ATOLL, DOCKER = "atoll", "docker"


@dataclass(frozen=True, slots=True)
class Figure:
    title: str
    unit: str
    limit: float | None = None
    of_docker: float | None = None
    more_is_better: bool = False

    def target(self) -> str:
        sign = "≥" if self.more_is_better else "≤"
        absolute = [f"{sign} {self.limit:g} {self.unit}"] if self.limit is not None else []
        relative = [f"{sign} {self.of_docker:g} × docker"] if self.of_docker is not None else []
        return ", ".join(absolute + relative)

    def is_met(self, ours: float, docker: float | None) -> bool:
        bounds = [self.limit] if self.limit is not None else []
        if self.of_docker is not None and docker is not None:
            bounds.append(self.of_docker * docker)
        return all(ours >= bound if self.more_is_better else ours <= bound for bound in bounds)


FIGURES = {
    "api_run": Figure("API: create, start, wait, delete of `true`, no network", "ms", 15, 0.08),
    "run": Figure("`run --rm` of `true`, default network", "ms", 90, 0.30),
    "run_none": Figure("`run --rm` of `true`, no network", "ms"),
    "at_once": Figure("50 `run --rm` at once, default network", "ms", None, 0.25),
    "exec": Figure("`exec` of `true`", "ms", None, 0.6),
    "ps": Figure("`ps`", "ms", None, 1.5),
    "inspect": Figure("`inspect`", "ms", None, 1.5),
    "images": Figure("`images`", "ms", None, 1.5),
    "start_each": Figure("`run -d`, 50 in turn, each", "ms"),
    "remove_each": Figure("`rm -f` of 50, each", "ms", None, 0.3),
    "log_capture": Figure("log capture", "MB/s", None, 4, more_is_better=True),
    "log_read": Figure("`logs` read back", "MB/s", None, 4, more_is_better=True),
    "compose_up": Figure("`compose up -d` of 3 services and a volume", "ms", None, 0.5),
    "compose_again": Figure("the same again, when all is up", "ms", None, 1.0),
    "compose_down": Figure("`compose down -v` of them", "ms", None, 0.4),
    "published": Figure("throughput of a published port", "MB/s", None, 1.0, more_is_better=True),
    "keeper_rss": Figure("keeper, idle, RSS", "MB", 15),
    "engine_rss": Figure("engine's process, idle, RSS", "MB", 70),
    "idle_rss": Figure("engine and keeper, idle, RSS", "MB", None, 0.35),
    "idle_pss": Figure("the same, PSS", "MB"),
    "used_rss": Figure("engine and keeper after all that, RSS", "MB", None, 0.35),
    "used_pss": Figure("the same, PSS", "MB"),
    "fifty_rss": Figure("engine and keeper with 50 containers, RSS", "MB", None, 0.10),
    "fifty_pss": Figure("the same, PSS", "MB"),
    "cluster_start": Figure("`cluster start` to a Ready node", "ms", 3000),
    "cluster_cold": Figure("the same, the engine's start included", "ms"),
    "pod": Figure("pod: POST to Running, local image", "ms", 400),
    "cluster_rss": Figure("control plane, node and keeper, idle, RSS", "MB", 200),
    "cluster_pss": Figure("the same, PSS", "MB"),
    "cluster_cpu": Figure("idle CPU of them, of one core", "%", 1),
    "api_start": Figure("API server: start to ready, empty store", "ms", 700),
    "api_start_full": Figure("the same with 10,000 objects", "ms", 1500),
    "api_get": Figure("GET of a config map, 16 at once, by wrk", "/s", 8000, more_is_better=True),
    "api_get_client": Figure("the same by the client in Python", "/s"),
    "api_get_cpu": Figure("the server's CPU for each", "µs"),
    "api_post_one": Figure("POST of config maps, one at a time", "/s"),
    "api_post": Figure("the same, 16 at once", "/s", 2000, more_is_better=True),
    "api_post_cpu": Figure("the server's CPU for each", "µs"),
    "api_patch": Figure("merge PATCH of config maps, 16 at once", "/s", 1800, more_is_better=True),
    "api_patch_cpu": Figure("the server's CPU for each", "µs"),
    "api_list_500": Figure("LIST of 500 config maps", "ms", 2.5),
    "api_pods": Figure("POST of 5,000 pods, 16 at once", "/s", 1500, more_is_better=True),
    "api_pods_cpu": Figure("the server's CPU for each", "µs"),
    "api_list_5000": Figure("LIST of 5,000 pods", "ms", 60),
    "api_pages": Figure("the same in pages of 500", "ms", 150),
    "api_watch": Figure("50 watchers, 500 creates, until all have all", "ms", 500),
    "api_growth": Figure("memory gained by 10,000 updates of four objects", "MB", 8),
    "api_rss_idle": Figure("API server, idle, RSS", "MB", 70),
    "api_rss_after": Figure("the same after all this", "MB", 250),
}


class Results:
    """Samples by figure and engine."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.names: dict[str, str] = {}  # engine -> its name with its version

    def add(self, key: str, engine: str, value: float) -> None:
        self.samples[key][engine].append(value)

    def median(self, key: str, engine: str) -> float | None:
        values = self.samples[key].get(engine)
        return statistics.median(values) if values else None

    def missed(self) -> list[str]:
        return [row[0] for row in self._rows() if row[-1] == "missed"]

    def table(self) -> str:
        """Markdown: a row for each figure measured, a column for each engine."""
        peers = [name for name in self.names if name != ATOLL]
        head = ["figure", "target", "atoll", *(self.names[peer] for peer in peers), ""]
        rows = list(self._rows())
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        rule = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
        return "\n".join(_line(row, widths) for row in [head, rule, *rows])

    def _rows(self) -> Iterable[list[str]]:
        for key, figure in FIGURES.items():
            ours = self.median(key, ATOLL)
            if ours is None:
                continue
            cells = [_number(ours, figure.unit)]
            for peer in self.names:
                if peer != ATOLL:
                    theirs = self.median(key, peer)
                    cells.append(f"{_number(theirs, figure.unit)} ({ours / theirs:.2f})" if theirs else "")
            verdict = ("met" if figure.is_met(ours, self.median(key, DOCKER)) else "missed") if figure.target() else ""
            yield [figure.title, figure.target(), *cells, verdict]


def _number(value: float, unit: str) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 1 else 2}f} {unit}"


def _line(row: list[str], widths: list[int]) -> str:
    cells = (cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
    return f"| {' | '.join(cells)} |"
