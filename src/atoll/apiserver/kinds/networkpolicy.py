"""Network policies: what they say of is told by policyTypes, by default what they carry rules of."""

from __future__ import annotations

import ipaddress

from atoll.apiserver.kinds import names
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.label_selectors import validate_selector
from atoll.apiserver.kinds.pod_containers import PROTOCOLS
from atoll.apiserver.kinds.rules import Object, ReadOnly, Rules


class NetworkPolicyRules(Rules):
    counts_generations = True

    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        for direction in ("ingress", "egress"):
            for rule in spec.get(direction) or ():
                for port in rule.get("ports") or ():
                    port.setdefault("protocol", "TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        spec = obj.get("spec") or {}
        validate_selector(spec.get("podSelector"), "spec.podSelector", causes)
        for index, kind in enumerate(spec.get("policyTypes") or ()):
            if kind not in ("Egress", "Ingress"):
                causes.unsupported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress"))
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or ()):
                path = f"spec.{direction}[{index}]"
                for number, port in enumerate(rule.get("ports") or ()):
                    _check_port(port, f"{path}.ports[{number}]", causes)
                for number, peer in enumerate(rule.get(peers) or ()):
                    _check_peer(peer, f"{path}.{peers}[{number}]", causes)


def _check_port(port: ReadOnly, path: str, causes: Causes) -> None:
    if port.get("protocol") not in PROTOCOLS:
        causes.unsupported(f"{path}.protocol", port.get("protocol"), PROTOCOLS)
    number, end = port.get("port"), port.get("endPort")
    if number is not None:
        causes.each(f"{path}.port", number, names.port_name(number) if isinstance(number, str) else names.port_number(number))
    if end is not None:
        if not isinstance(number, int):
            causes.invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified or non-numeric")
        elif end < number:
            causes.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")


def _check_peer(peer: ReadOnly, path: str, causes: Causes) -> None:
    for field in ("podSelector", "namespaceSelector"):
        validate_selector(peer.get(field), f"{path}.{field}", causes)
    block = peer.get("ipBlock")
    if not peer:
        causes.required(path, "must specify a peer")
    elif block is not None and len(peer) > 1:
        causes.forbidden(path, "may not specify both ipBlock and another peer")
    elif block is not None:
        try:
            network = ipaddress.ip_network(block.get("cidr") or "")
        except ValueError:
            causes.invalid(
                f"{path}.ipBlock.cidr", block.get("cidr") or "", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            )
            return
        for index, text in enumerate(block.get("except") or ()):
            at = f"{path}.ipBlock.except[{index}]"
            try:
                inner = ipaddress.ip_network(text)
            except ValueError:
                causes.invalid(at, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
                continue
            if inner.version != network.version or not (network.supernet_of(inner) and network != inner):  # type: ignore[arg-type]
                causes.invalid(at, text, f'must be a strict subset of `cidr`: "{network}"')


RULES = NetworkPolicyRules()
