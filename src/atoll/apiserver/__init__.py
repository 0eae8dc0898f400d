"""The Kubernetes API server: one pipeline for every kind, over the store.

`ApiServer(config)` is the whole of it: start it, give `handler` to an `atoll.http.Server`, or let `serve(config)` do both. Parts in the
same process talk to it by `InProcessClient`, which has the shape of `atoll.client.Client`.
"""

from __future__ import annotations

from atoll.apiserver.config import ApiServerConfig
from atoll.apiserver.inprocess import InProcessClient
from atoll.apiserver.server import ApiServer, serve

__all__ = ["ApiServer", "ApiServerConfig", "InProcessClient", "serve"]
