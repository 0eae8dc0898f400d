"""ServiceCIDRs and IPAddresses: ranges of cluster IPs, and each address that is taken (KEP-1880)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.rules import ReadOnly, Rules

CIDRS_MAX = 2  # one of each family


class ServiceCIDRRules(Rules):
    def check(self, obj: ReadOnly, causes: Causes) -> None:
        cidrs = (obj.get("spec") or {}).get("cidrs") or ()
        if not cidrs:
            causes.required("spec.cidrs", "at least one CIDR required")
        elif len(cidrs) > CIDRS_MAX:
            causes.invalid("spec.cidrs", cidrs, "may only hold up to 2 values")
        families = set()
        for index, cidr in enumerate(cidrs):
            try:
                family = ip_network(cidr).version
            except ValueError:
                causes.invalid(f"spec.cidrs[{index}]", cidr, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
                continue
            if family in families:
                causes.invalid(
                    "spec.cidrs", cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
                )
            families.add(family)

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("spec.cidrs", (new.get("spec") or {}).get("cidrs"), (old.get("spec") or {}).get("cidrs"))


class IPAddressRules(Rules):
    def name_problems(self, name: str) -> list[str]:
        try:
            canonical = str(ip_address(name))
        except ValueError:
            return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        return [] if name == canonical else [f"must be in canonical form ({canonical})"]

    def check(self, obj: ReadOnly, causes: Causes) -> None:
        parent = (obj.get("spec") or {}).get("parentRef")
        if parent is None:
            causes.required("spec.parentRef")
            return
        for field in ("resource", "name"):
            if not parent.get(field):
                causes.required(f"spec.parentRef.{field}")

    def check_change(self, new: ReadOnly, old: ReadOnly, causes: Causes, subresource: str) -> None:
        causes.immutable("spec.parentRef", (new.get("spec") or {}).get("parentRef"), (old.get("spec") or {}).get("parentRef"))


SERVICE_CIDR, IP_ADDRESS = ServiceCIDRRules(), IPAddressRules()
