"""Kinds that differ from the common rules only in counting generations."""

from __future__ import annotations

from atoll.apiserver.kinds.rules import Object, Rules
from atoll.apiserver.kinds.workloads import default_template


class CountedRules(Rules):
    counts_generations = True


class PodTemplateRules(CountedRules):
    def default(self, obj: Object) -> None:
        default_template(obj)


COUNTED, POD_TEMPLATE = CountedRules(), PodTemplateRules()
