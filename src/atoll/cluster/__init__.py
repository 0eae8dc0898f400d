"""The life of a cluster on this machine: certificates, kubeconfig, the control-plane process, and the node that joins it.

The verbs are minikube's (start, stop, delete, status, ip). All state lies below `Instance.cluster`; the node's part is the node daemon's
own.
"""
