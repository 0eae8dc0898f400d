"""ComponentStatuses: how the parts of the control plane fare, as an answer and never stored (deprecated since 1.19, and still asked for).

The store is known here; the other parts are told of by whoever runs them beside this server. Nothing is said of parts that run elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Item, Object
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.machinery.selectors import Selector

Check = Callable[[], str]  # "" when all is well, else what is wrong


class Components:
    """`checks` by upstream's names: scheduler, controller-manager. May be added to while the server runs."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.checks: dict[str, Check] = {}

    def get(self, kind: Kind, name: str) -> Object:
        """Raises StatusError 404."""
        for told in self._all():
            if told["metadata"]["name"] == name:
                return told
        raise statuses.not_found(kind, name)

    def list(self, selector: Selector, item: Callable[[Object], Item]) -> list[Item]:
        return [item(told) for told in self._all() if selector.matches(told)]

    def _all(self) -> Iterator[Object]:
        problems = {name: check() for name, check in self.checks.items()} | {"etcd-0": self._core.store.problem}
        for name, problem in problems.items():
            yield {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [_condition(problem)]}


def _condition(problem: str) -> dict[str, Any]:
    if problem:
        return {"type": "Healthy", "status": "False", "message": problem, "error": problem}
    return {"type": "Healthy", "status": "True", "message": "ok"}
