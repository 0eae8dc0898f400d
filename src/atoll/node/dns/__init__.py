"""DNS for services and pods: cluster.local, by the Kubernetes DNS specification 1.1.0.

`Zone` and `resolve` are pure; `ClusterDns` serves them and forwards the rest; `kube_dns_objects` are the Service and EndpointSlice that
make it known;
`pod_resolv_conf` writes a pod's resolver configuration.
"""

from atoll.node.dns.objects import kube_dns_objects, publish
from atoll.node.dns.podconfig import pod_resolv_conf
from atoll.node.dns.server import ClusterDns
from atoll.node.dns.zone import Zone, resolve

__all__ = ["ClusterDns", "Zone", "kube_dns_objects", "pod_resolv_conf", "publish", "resolve"]
