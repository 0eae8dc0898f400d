"""Long-lived streams that end at a kubelet or a service: log, exec, attach, portforward, proxy."""
