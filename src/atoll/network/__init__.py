"""Networks of containers: bridges, addresses, published ports and names.

`Networks` is the face: it keeps the instance's networks and seats containers on them. `files` makes /etc/hosts and /etc/resolv.conf.
"""

from atoll.network.files import HOST_GATEWAY, host_gateway, hosts_file, resolv_conf_file
from atoll.network.model import Endpoint, Network, PortBinding, PublishedPort
from atoll.network.networks import Networks

__all__ = [
    "HOST_GATEWAY",
    "Endpoint",
    "Network",
    "Networks",
    "PortBinding",
    "PublishedPort",
    "host_gateway",
    "hosts_file",
    "resolv_conf_file",
]
