"""Kinds that would be promises the server does not keep yet: they can be listed, and are refused when one is to be made.

An API that was registered and led nowhere would be worse than a refusal.
"""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.machinery import statuses

_WHY = {
    "apiregistration.k8s.io": "aggregated API servers are not served yet",
}


def refuse_unserved(call: Call) -> None:
    """Raises StatusError 501."""
    why = _WHY.get(call.kind.group)
    if why:
        raise statuses.not_supported(f"{call.kind.resource} cannot be created: {why} by this server")
