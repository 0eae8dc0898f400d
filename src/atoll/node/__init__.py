"""The node: the daemon of one machine, and, once it has joined a cluster, its kubelet, service proxy and DNS."""
