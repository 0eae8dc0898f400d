"""Rules of a pod's spec and of the pod templates of all workloads."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import validate_selector
from atoll.apiserver.kinds.metadata import validate_annotations, validate_labels
from atoll.apiserver.kinds.pod_containers import validate_containers
from atoll.apiserver.kinds.pod_volumes import validate_volumes

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NODE_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
_AFFINITY_LISTS = ("podAffinity", "podAntiAffinity")
_REQUIRED, _PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
_SYSCTL = re.compile(r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?")
_SYSCTL_MAX = 253
_NAMESERVERS_MAX, _SEARCHES_MAX = 3, 32

Object = Mapping[str, Any]


def validate_pod_spec(spec: Object, path: str, causes: Causes) -> None:
    validate_volumes(spec.get("volumes") or (), f"{path}.volumes", causes)
    validate_containers(spec, path, causes)
    causes.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    causes.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), DNS_POLICIES)
    _validate_dns(spec, path, causes)
    validate_labels(spec.get("nodeSelector"), f"{path}.nodeSelector", causes)
    causes.non_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 0x7FFFFFFF:
        causes.invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    for field, check in (
        ("serviceAccountName", names.subdomain),
        ("nodeName", names.subdomain),
        ("hostname", names.label),
        ("subdomain", names.label),
        ("priorityClassName", names.subdomain),
        ("runtimeClassName", names.subdomain),
    ):
        if spec.get(field):
            causes.each(f"{path}.{field}", spec[field], check(spec[field]))
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get("hostUsers") is False and spec.get(field):
            causes.forbidden(f"{path}.{field}", "when `hostUsers` is false")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        validate_ip(alias.get("ip") or "", f"{path}.hostAliases[{index}].ip", causes)
        for number, name in enumerate(alias.get("hostnames") or ()):
            causes.each(f"{path}.hostAliases[{index}].hostnames[{number}]", name, names.subdomain(name))
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        validate_toleration(toleration, f"{path}.tolerations[{index}]", causes)
    _validate_sysctls((spec.get("securityContext") or {}).get("sysctls") or (), f"{path}.securityContext.sysctls", causes)
    if spec.get("affinity"):
        _validate_affinity(spec["affinity"], f"{path}.affinity", causes)
    _validate_spread(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints", causes)
    if spec.get("schedulingGates") and spec.get("nodeName"):
        causes.forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared")


def validate_template(template: Object, path: str, causes: Causes, restart_policies: Sequence[str] = RESTART_POLICIES) -> None:
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    validate_labels(metadata.get("labels"), f"{path}.metadata.labels", causes)
    validate_annotations(metadata.get("annotations"), f"{path}.metadata.annotations", causes)
    validate_pod_spec(spec, f"{path}.spec", causes)
    policy = spec.get("restartPolicy")
    if policy in RESTART_POLICIES and policy not in restart_policies:
        causes.unsupported(f"{path}.spec.restartPolicy", policy, restart_policies)
    if spec.get("ephemeralContainers"):
        causes.forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def validate_ip(value: str, path: str, causes: Causes, version: int | None = None) -> None:
    try:
        address = ipaddress.ip_address("" if "%" in value else value)  # a zone means a link of one host
    except ValueError:
        causes.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if version and address.version != version:
        causes.invalid(path, value, f"must be a valid IPv{version} address")


def _validate_dns(spec: Object, path: str, causes: Causes) -> None:
    config = spec.get("dnsConfig") or {}
    at = f"{path}.dnsConfig"
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        causes.required(f"{at}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > _NAMESERVERS_MAX:
        causes.invalid(f"{at}.nameservers", list(servers), f"must not have more than {_NAMESERVERS_MAX} nameservers")
    for index, server in enumerate(servers):
        validate_ip(server, f"{at}.nameservers[{index}]", causes)
    if len(searches) > _SEARCHES_MAX:
        causes.invalid(f"{at}.searches", list(searches), f"must not have more than {_SEARCHES_MAX} search paths")
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            causes.required(f"{at}.options[{index}]", "must not be empty")


def validate_toleration(toleration: Object, path: str, causes: Causes) -> None:
    key, operator = toleration.get("key") or "", toleration.get("operator") or "Equal"
    if key:
        causes.each(f"{path}.key", key, names.qualified_name(key))
    elif operator != "Exists":
        causes.invalid(
            f"{path}.operator",
            toleration.get("operator") or "",
            'operator must be Exists when `key` is empty, which means "match all values and all keys"',
        )
    if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
        causes.invalid(f"{path}.effect", toleration.get("effect") or "", "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator == "Equal":
        causes.each(f"{path}.operator", toleration.get("value") or "", names.label_value(toleration.get("value") or ""))
    elif operator == "Exists":
        if toleration.get("value"):
            causes.invalid(f"{path}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'")
    else:
        causes.unsupported(f"{path}.operator", operator, ("Equal", "Exists"))
    if toleration.get("effect"):
        causes.one_of(f"{path}.effect", toleration["effect"], TAINT_EFFECTS)


def _validate_sysctls(sysctls: Sequence[Object], path: str, causes: Causes) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(sysctls):
        name = sysctl.get("name") or ""
        where = f"{path}[{index}].name"
        if not name:
            causes.required(where)
        elif len(name) > _SYSCTL_MAX or not _SYSCTL.fullmatch(name):
            causes.invalid(where, name, f"must have at most {_SYSCTL_MAX} characters and match regex ^{_SYSCTL.pattern}$")
        elif name in seen:
            causes.duplicate(where, name)
        seen.add(name)


def _validate_affinity(affinity: Object, path: str, causes: Causes) -> None:
    node = affinity.get("nodeAffinity") or {}
    if _REQUIRED in node:
        validate_node_selector(node[_REQUIRED], f"{path}.nodeAffinity.{_REQUIRED}", causes)
    for index, preferred in enumerate(node.get(_PREFERRED) or ()):
        at = f"{path}.nodeAffinity.{_PREFERRED}[{index}]"
        _validate_weight(preferred, at, causes)
        _validate_node_term(preferred.get("preference") or {}, f"{at}.preference", causes)
    for name in _AFFINITY_LISTS:
        terms = affinity.get(name) or {}
        for index, term in enumerate(terms.get(_REQUIRED) or ()):
            _validate_pod_term(term, f"{path}.{name}.{_REQUIRED}[{index}]", causes)
        for index, weighted in enumerate(terms.get(_PREFERRED) or ()):
            at = f"{path}.{name}.{_PREFERRED}[{index}]"
            _validate_weight(weighted, at, causes)
            _validate_pod_term(weighted.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm", causes)


def _validate_weight(preferred: Object, path: str, causes: Causes) -> None:
    weight = preferred.get("weight") or 0
    if not 1 <= weight <= 100:
        causes.invalid(f"{path}.weight", weight, "must be in the range 1-100")


def validate_node_selector(selector: Object, path: str, causes: Causes) -> None:
    terms = selector.get("nodeSelectorTerms") or ()
    if not terms:
        causes.required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        _validate_node_term(term, f"{path}.nodeSelectorTerms[{index}]", causes)


def _validate_node_term(term: Object, path: str, causes: Causes) -> None:
    for index, expression in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator") or "", expression.get("values") or ()
        if operator in ("In", "NotIn") and not values:
            causes.required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            causes.forbidden(f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator in ("Gt", "Lt") and len(values) != 1:
            causes.required(f"{at}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        elif operator not in _NODE_OPERATORS:
            causes.invalid(f"{at}.operator", operator, "not a valid selector operator")
        causes.each(f"{at}.key", expression.get("key") or "", names.qualified_name(expression.get("key") or ""))


def _validate_pod_term(term: Object, path: str, causes: Causes) -> None:
    validate_selector(term.get("labelSelector"), f"{path}.labelSelector", causes)
    validate_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector", causes)
    if not term.get("topologyKey"):
        causes.required(f"{path}.topologyKey", "can not be empty")
    else:
        causes.each(f"{path}.topologyKey", term["topologyKey"], names.qualified_name(term["topologyKey"]))


def _validate_spread(constraints: Sequence[Object], path: str, causes: Causes) -> None:
    for index, constraint in enumerate(constraints):
        at = f"{path}[{index}]"
        if (constraint.get("maxSkew") or 0) <= 0:
            causes.invalid(f"{at}.maxSkew", constraint.get("maxSkew") or 0, "must be greater than zero")
        if not constraint.get("topologyKey"):
            causes.required(f"{at}.topologyKey", "can not be empty")
        action = constraint.get("whenUnsatisfiable") or ""
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            causes.unsupported(f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        validate_selector(constraint.get("labelSelector"), f"{at}.labelSelector", causes)
