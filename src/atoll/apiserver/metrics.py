"""/metrics in Prometheus' text form: requests answered, objects stored, what the process uses. Names are upstream's where it has them."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from atoll.apiserver.config import VERSION
from atoll.apiserver.fairness.gate import Fairness
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.kind import KindRegistry

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """`requests` counts by method and status code; 101 for connections that were taken over."""

    def __init__(self, registry: KindRegistry, caches: Caches, fairness: Fairness, started: float) -> None:
        self._fairness = fairness
        self.requests: Counter[tuple[str, int]] = Counter()
        self._registry = registry
        self._caches = caches
        self._started = started

    def render(self) -> str:
        stored = {kind.resource: len(self._caches.of(kind)) for kind in self._registry if not kind.storage_group_version}
        usage = resource.getrusage(resource.RUSAGE_SELF)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        lines = [
            *_head("kubernetes_build_info", "gauge", "The Kubernetes release whose API is served."),
            f'kubernetes_build_info{{git_version="{VERSION}"}} 1',
            *_head("apiserver_request_total", "counter", "Requests answered."),
            *(
                f'apiserver_request_total{{method="{method}",code="{code}"}} {count}'
                for (method, code), count in sorted(self.requests.items())
            ),
            *_head("apiserver_storage_objects", "gauge", "Objects stored at this moment."),
            *(f'apiserver_storage_objects{{resource="{name}"}} {count}' for name, count in sorted(stored.items())),
            *self._flow_control(),
            *_head("process_cpu_seconds_total", "counter", "User and system CPU time spent."),
            f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.2f}",
            *_head("process_resident_memory_bytes", "gauge", "Resident memory."),
            f"process_resident_memory_bytes {resident}",
            *_head("process_start_time_seconds", "gauge", "Start of the server, in seconds since the epoch."),
            f"process_start_time_seconds {self._started:.2f}",
        ]
        return "\n".join(lines) + "\n"

    def _flow_control(self) -> Iterator[str]:
        levels = sorted(self._fairness.levels.values(), key=lambda level: level.name)
        for name, kind, about, field in (
            ("nominal_limit_seats", "gauge", "Seats of a priority level.", "nominal"),
            ("current_executing_seats", "gauge", "Seats taken at this moment.", "executing"),
            ("current_inqueue_requests", "gauge", "Requests that wait for a seat.", "queued"),
            ("rejected_requests_total", "counter", "Requests refused for want of a seat.", "rejected"),
        ):
            yield from _head(f"apiserver_flowcontrol_{name}", kind, about)
            for level in levels:
                yield f'apiserver_flowcontrol_{name}{{priority_level="{level.name}"}} {getattr(level, field)}'


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"
