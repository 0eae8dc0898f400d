"""Atoll: containers and a Kubernetes cluster in one `pip install`."""

__version__ = "0.1.0"
