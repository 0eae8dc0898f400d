"""The instance's rules in the kernel, and its peace with firewalls that were there before.

Where libnftables is missing nothing is masqueraded and ports go through the relay; containers still reach each other and the host.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from atoll.errors import NotSupported
from atoll.kernel.nftables import Nftables, NftablesError
from atoll.network import rules
from atoll.network.links import bridge_netfilter, bridge_prefix
from atoll.network.model import Endpoint, Network

logger = logging.getLogger(__name__)

_LEGACY_TABLES = Path("/proc/net/ip_tables_names")
_LEGACY_TIMEOUT_S = 10


class Firewall:
    """Each change is one transaction. Raises NftablesError when the kernel refuses."""

    def __init__(self, instance_id: str) -> None:
        self._id = instance_id
        self._table = rules.table_name(instance_id)
        try:
            self._nft: Nftables | None = Nftables()
        except NotSupported as error:
            logger.warning("%s", error)
            self._nft = None

    @property
    def is_active(self) -> bool:
        return self._nft is not None

    def close(self) -> None:
        if self._nft:
            self._nft.close()

    def replace(self, networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> None:
        """Writes the whole table anew: whatever a crash or a hand left in it is gone."""
        self._run(rules.full_table(self._table, networks, endpoints, bridge_netfilter=bridge_netfilter()))

    def add(self, elements: Sequence[rules.Element]) -> None:
        if elements:
            self._run(rules.add(self._table, elements))

    def delete(self, elements: Sequence[rules.Element]) -> None:
        """Elements that are not there any more (the table was flushed by hand) do not matter."""
        if not elements:
            return
        try:
            self._run(rules.delete(self._table, elements))
        except NftablesError:
            for element in elements:
                try:
                    self._run(rules.delete(self._table, [element]))
                except NftablesError as error:
                    logger.debug("%s: %s", element, error)

    def replace6(self, networks: Iterable[Network], endpoints: Iterable[Endpoint]) -> None:
        """The same for IPv6, whose table stands only where a network has it."""
        self._run(rules.full_table6(self._table, networks, endpoints, bridge_netfilter=bridge_netfilter()))

    def destroy(self) -> None:
        self._run(f"table ip {self._table}\ndelete table ip {self._table}\n")
        with contextlib.suppress(NftablesError):  # a kernel without IPv6
            self._run(f"table ip6 {self._table}\ndelete table ip6 {self._table}\n")
        self._leave_foreign()

    def open_foreign(self) -> None:
        """Lets our bridges through forward chains of others that drop by default (Docker, ufw): an accept in our table does not overrule
        them.
        """
        present = {found[:4] for found in self._our_foreign_rules()}
        accept = f'"{bridge_prefix(self._id)}*" accept comment "{self._table}"'
        for family, table, chain in self._dropping_chains():
            for direction in ("iifname", "oifname"):
                if (family, table, chain, direction) not in present:
                    self._run(f"insert rule {family} {table} {chain} {direction} {accept}\n")
        self._legacy("-I", only_where_missing=True)

    def _run(self, commands: str) -> None:
        if self._nft:
            self._nft.run(commands)

    def _dropping_chains(self) -> list[tuple[str, str, str]]:
        return [
            (chain["family"], chain["table"], chain["name"])
            for chain in self._listed("list chains", "chain")
            if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "ip6", "inet")
        ]

    def _our_foreign_rules(self) -> list[tuple[str, str, str, str, int]]:
        """Family, table, chain, direction and handle of the rules that `open_foreign` wrote, known by their comment."""
        found = []
        for family, table, chain in self._dropping_chains():
            for rule in self._listed(f"list chain {family} {table} {chain}", "rule"):
                if rule.get("comment") == self._table:
                    key = rule["expr"][0]["match"]["left"]["meta"]["key"]
                    found.append((family, table, chain, key, rule["handle"]))
        return found

    def _leave_foreign(self) -> None:
        for family, table, chain, _direction, handle in self._our_foreign_rules():
            self._run(f"delete rule {family} {table} {chain} handle {handle}\n")
        self._legacy("-D", only_where_missing=False)

    def _listed(self, command: str, kind: str) -> list[dict[str, Any]]:
        if not self._nft:
            return []
        try:
            answer = orjson.loads(self._nft.query(command))
        except (NftablesError, ValueError):  # chains of the iptables kind that this libnftables cannot show
            return []
        return [item[kind] for item in answer["nftables"] if kind in item]

    def _legacy(self, action: str, *, only_where_missing: bool) -> None:
        """The same for the older iptables in the kernel, which only its own program can change."""
        program = shutil.which("iptables-legacy")
        try:
            has_filter = "filter" in _LEGACY_TABLES.read_text(encoding="ascii").split()
        except OSError:
            return
        if not (program and has_filter):
            return
        for direction in ("-i", "-o"):
            rule = ["FORWARD", direction, f"{bridge_prefix(self._id)}+", "-j", "ACCEPT"]
            if only_where_missing and _succeeds([program, "-w", "-C", *rule]):
                continue
            _succeeds([program, "-w", action, *rule])


def _succeeds(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=_LEGACY_TIMEOUT_S, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
