"""Ingresses and their classes."""

from __future__ import annotations

import re

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_is_wildcard = re.compile(r"\*(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+").fullmatch


class IngressRules(Rules):
    counts_generations = True

    def initial_status(self, obj: ReadOnly) -> Object:
        return {"loadBalancer": {}}

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        if not spec.get("rules") and not spec.get("defaultBackend"):
            causes.invalid("spec", spec.get("rules") or [], "either `defaultBackend` or `rules` must be specified")
        if spec.get("defaultBackend"):
            _check_backend(spec["defaultBackend"], "spec.defaultBackend", causes)
        for index, rule in enumerate(spec.get("rules") or ()):
            path = f"spec.rules[{index}]"
            _check_host(rule.get("host") or "", f"{path}.host", causes)
            http = rule.get("http")
            if http is not None and not http.get("paths"):
                causes.required(f"{path}.http.paths")
            for number, route in enumerate((http or {}).get("paths") or ()):
                _check_route(route, f"{path}.http.paths[{number}]", causes)
        for index, tls in enumerate(spec.get("tls") or ()):
            for number, host in enumerate(tls.get("hosts") or ()):
                _check_host(host, f"spec.tls[{index}].hosts[{number}]", causes)


def _check_host(host: str, path: str, causes: Causes) -> None:
    if "*" in host:
        if not _is_wildcard(host):
            causes.invalid(path, host, "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain")
    elif host:
        causes.each(path, host, names.subdomain(host))


def _check_route(route: ReadOnly, path: str, causes: Causes) -> None:
    kind, place = route.get("pathType"), route.get("path") or ""
    if not kind:
        causes.required(f"{path}.pathType", "pathType must be specified")
    elif kind not in _PATH_TYPES:
        causes.unsupported(f"{path}.pathType", kind, _PATH_TYPES)
    elif kind != "ImplementationSpecific" or place:
        if not place.startswith("/"):
            causes.invalid(f"{path}.path", place, "must be an absolute path")
        if kind != "ImplementationSpecific":
            for bad in ("//", "/./", "/../", "%2f", "%2F"):
                if bad in place:
                    causes.invalid(f"{path}.path", place, f"must not contain '{bad}'")
    _check_backend(route.get("backend") or {}, f"{path}.backend", causes)


def _check_backend(backend: ReadOnly, path: str, causes: Causes) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is None and resource is None:
        causes.required(path, "resource or service backend is required")
    elif service is not None and resource is not None:
        causes.invalid(path, "", "cannot set both resource and service backends")
    if service is None:
        return
    if not service.get("name"):
        causes.required(f"{path}.service.name")
    else:
        causes.each(f"{path}.service.name", service["name"], names.label_1035(service["name"]))
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        causes.invalid(path, "", "cannot set both port name & port number")
    elif port.get("name"):
        causes.each(f"{path}.service.port.name", port["name"], names.port_name(port["name"]))
    elif port.get("number"):
        causes.each(f"{path}.service.port.number", port["number"], names.port_number(port["number"]))
    else:
        causes.required(path, "port name or number is required")


class IngressClassRules(Rules):
    counts_generations = True

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        after, before = (new.get("spec") or {}).get("controller"), (old.get("spec") or {}).get("controller")
        causes.immutable("spec.controller", after, before)


RULES, CLASS_RULES = IngressRules(), IngressClassRules()
