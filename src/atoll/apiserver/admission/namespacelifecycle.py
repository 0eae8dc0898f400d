"""NamespaceLifecycle: nothing is made in a namespace that is missing or ending, and the system's own namespaces stay."""

from __future__ import annotations

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses

IMMORTAL = ("default", "kube-system", "kube-public")


async def check_namespace_lives(core: Core, call: Call) -> None:
    """Raises StatusError 404 for a missing namespace, 403 for one that is terminating."""
    if not call.namespace or not call.kind.namespaced:
        return
    namespaces = core.registry.get("", "v1", "namespaces")
    if namespaces is None:
        return
    item = await core.cacher(namespaces).sought(call.namespace)
    if item is None:
        raise statuses.not_found(namespaces, call.namespace)
    if item.obj["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {call.namespace} because it is being terminated"
        error = statuses.forbidden(call.kind, call.name, why)
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {call.namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = {**(error.details or {}), "causes": [cause]}
        raise error


def keep_system_namespaces(call: Call) -> None:
    """Raises StatusError 403."""
    if call.kind.plural == "namespaces" and not call.kind.group and call.name in IMMORTAL:
        raise statuses.forbidden(call.kind, call.name, "this namespace may not be deleted")
