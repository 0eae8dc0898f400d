"""Flow schemas and priority levels: their defaults, and that their numbers can be (apis/flowcontrol/validation)."""

from __future__ import annotations

import math
from typing import Any

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

PRECEDENCE, PRECEDENCE_MAX = 1000, 10_000
SHARES, QUEUES, HAND, LENGTH = 30, 64, 8, 50
ENTROPY_MAX = 60  # bits a dealt hand may take


class FlowSchemaRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = PRECEDENCE

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        name, precedence = (obj.get("metadata") or {}).get("name"), spec.get("matchingPrecedence") or 0
        if precedence < 1:
            causes.invalid("spec.matchingPrecedence", precedence, "must be a positive value")
        elif precedence > PRECEDENCE_MAX:
            causes.invalid("spec.matchingPrecedence", precedence, f"must not be greater than {PRECEDENCE_MAX}")
        elif precedence == 1 and name != "exempt":
            causes.invalid("spec.matchingPrecedence", precedence, "only the schema named 'exempt' may have matchingPrecedence 1")
        if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
            causes.required("spec.priorityLevelConfiguration.name", "must reference a priority level")
        method = spec.get("distinguisherMethod")
        if method is not None and method.get("type") not in ("ByNamespace", "ByUser"):
            causes.unsupported("spec.distinguisherMethod.type", method.get("type"), ("ByNamespace", "ByUser"))
        for index, rule in enumerate(spec.get("rules") or ()):
            self._check_rule(f"spec.rules[{index}]", rule, causes)

    def _check_rule(self, path: str, rule: ReadOnly, causes: Causes) -> None:
        subjects = rule.get("subjects") or []
        if not subjects:
            causes.required(f"{path}.subjects", "subjects must contain at least one value")
        for index, subject in enumerate(subjects):
            kinds = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}
            field = kinds.get(subject.get("kind") or "")
            if field is None:
                causes.unsupported(f"{path}.subjects[{index}].kind", subject.get("kind"), ("Group", "ServiceAccount", "User"))
            elif not (subject.get(field) or {}).get("name"):
                causes.required(f"{path}.subjects[{index}].{field}", f"{field} is required when subject kind is '{subject['kind']}'")
        if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
            causes.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty")
        for index, each in enumerate(rule.get("resourceRules") or ()):
            if not each.get("clusterScope") and not each.get("namespaces"):
                where = f"{path}.resourceRules[{index}].namespaces"
                causes.required(where, "resource rules that are not cluster scoped must supply at least one namespace")


class PriorityLevelRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("type") == "Exempt":
            exempt = spec.setdefault("exempt", {})
            exempt.setdefault("nominalConcurrencyShares", 0)
            exempt.setdefault("lendablePercent", 0)
        limited = spec.get("limited")
        if limited is None:
            return
        limited.setdefault("nominalConcurrencyShares", SHARES)
        limited.setdefault("lendablePercent", 0)
        queuing = (limited.get("limitResponse") or {}).get("queuing")
        if queuing is not None:
            for field, value in (("queues", QUEUES), ("handSize", HAND), ("queueLengthLimit", LENGTH)):
                if not queuing.get(field):
                    queuing[field] = value

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        kind, limited = spec.get("type"), spec.get("limited")
        causes.one_of("spec.type", kind, ("Exempt", "Limited"))
        name = (obj.get("metadata") or {}).get("name")
        if (name == "exempt") != (kind == "Exempt"):
            told = "must be 'Exempt' if and only if `name` is 'exempt'"
            causes.invalid("spec.type", kind, told)
        if kind == "Limited" and limited is None:
            causes.required("spec.limited", "must not be empty when type is Limited")
        elif kind == "Exempt" and limited is not None:
            causes.forbidden("spec.limited", "must be nil if the type is not Limited")
        if kind == "Limited" and spec.get("exempt") is not None:
            causes.forbidden("spec.exempt", "must be nil if the type is Limited")
        self._check_shares("spec.limited" if limited is not None else "spec.exempt", limited or spec.get("exempt") or {}, causes)
        if limited is not None:
            self._check_response(limited.get("limitResponse") or {}, causes)

    def _check_shares(self, path: str, shares: ReadOnly, causes: Causes) -> None:
        if (shares.get("nominalConcurrencyShares") or 0) < 0:
            causes.invalid(f"{path}.nominalConcurrencyShares", shares["nominalConcurrencyShares"], "must be a non-negative integer")
        percent = shares.get("lendablePercent") or 0
        if not 0 <= percent <= 100:
            causes.invalid(f"{path}.lendablePercent", percent, "must be between 0 and 100, inclusive")
        if (shares.get("borrowingLimitPercent") or 0) < 0:
            told = "if specified, must be a non-negative integer"
            causes.invalid(f"{path}.borrowingLimitPercent", shares["borrowingLimitPercent"], told)

    def _check_response(self, response: ReadOnly, causes: Causes) -> None:
        path = "spec.limited.limitResponse"
        causes.one_of(f"{path}.type", response.get("type"), ("Queue", "Reject"))
        queuing = response.get("queuing")
        if response.get("type") == "Reject" and queuing is not None:
            causes.forbidden(f"{path}.queuing", "must be nil if limited.limitResponse.type is not Limited")
        elif response.get("type") == "Queue" and queuing is None:
            causes.required(f"{path}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        if queuing is not None:
            self._check_queuing(f"{path}.queuing", queuing, causes)

    def _check_queuing(self, path: str, queuing: dict[str, Any] | ReadOnly, causes: Causes) -> None:
        fields = ("queueLengthLimit", "queues", "handSize")
        if any((queuing.get(field) or 0) <= 0 for field in fields):
            for field in fields:
                if (queuing.get(field) or 0) <= 0:
                    causes.invalid(f"{path}.{field}", queuing.get(field), "must be positive")
            return
        queues, hand = queuing["queues"], queuing["handSize"]
        if queues > 10_000_000:
            causes.invalid(f"{path}.queues", queues, "must not be greater than 10000000")
        elif hand > queues:
            causes.invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})")
        elif hand > ENTROPY_MAX or sum(math.log2(queues - card) for card in range(hand)) > ENTROPY_MAX:
            told = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_MAX}"
            causes.invalid(f"{path}.handSize", hand, told)


FLOW_SCHEMA, PRIORITY_LEVEL = FlowSchemaRules(), PriorityLevelRules()
