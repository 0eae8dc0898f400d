"""Addresses that mean a machine's own doors to whoever uses them, not a place in the cluster: never endpoints, never proxied to.

Loopback and unspecified addresses would turn a service into a way to what only this host may reach, link-local ones into a way to a cloud's
metadata service (upstream's ValidateNonSpecialIP, and CVE-2020-8559's kin in the proxy).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_LINK_LOCAL_MULTICAST_6 = IPv6Network("ff02::/16")


def special_range(text: str) -> str:
    """Why an address will not do, in upstream's words; "" when it will. Raises ValueError where it is none."""
    address: IPv4Address | IPv6Address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # the kernel sends there, too
    if address.is_unspecified:
        return f"may not be unspecified ({text})"
    if address.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if address.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if address in _LINK_LOCAL_MULTICAST_6 if isinstance(address, IPv6Address) else address.packed[:3] == b"\xe0\0\0":
        return "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    return ""


def is_special(text: str) -> bool:
    """True for what is no address at all, too."""
    try:
        return special_range(text) != ""
    except ValueError:
        return True
