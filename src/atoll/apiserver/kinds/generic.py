"""Kinds that differ from the common rules only in counting generations or in how they are named."""

from __future__ import annotations

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.rules import Object, Rules
from atoll.apiserver.kinds.workloads import default_template


class CountedRules(Rules):
    counts_generations = True


class SegmentNamedRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        return names.path_segment(name)


class PodTemplateRules(CountedRules):
    def default(self, obj: Object) -> None:
        default_template(obj)


COUNTED, SEGMENT_NAMED, POD_TEMPLATE = CountedRules(), SegmentNamedRules(), PodTemplateRules()
