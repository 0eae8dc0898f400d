"""Services to nftables: cluster IPs, node ports, external IPs; session affinity; traffic policies.

`plan` says what the rules must be, as a pure function of services and endpoint slices; `ServiceProxy` keeps the kernel so.
"""

from atoll.node.proxy.plan import plan
from atoll.node.proxy.proxy import ServiceProxy
from atoll.node.proxy.ruleset import Ruleset

__all__ = ["Ruleset", "ServiceProxy", "plan"]
