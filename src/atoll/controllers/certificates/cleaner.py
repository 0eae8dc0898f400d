"""Requests and bootstrap tokens that have had their time are deleted.

A request goes an hour after it was decided or has failed, a day after it was made when nobody decided, and when its certificate has
ended (kube-controller-manager, csrcleaner). A bootstrap token goes at the time it names (tokencleaner).
"""

from __future__ import annotations

import datetime as dt
from base64 import b64decode

from atoll.client.objects import Object, condition_of, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import CERTIFICATE_SIGNING_REQUESTS, SECRETS, Resource
from atoll.controllers.base import Context, Controller
from atoll.controllers.pods import parse_time
from atoll.errors import StatusError

DECIDED_S = 3_600.0
PENDING_S = 86_400.0
TOKEN_TYPE = "bootstrap.kubernetes.io/token"  # noqa: S105  # the type of a secret


class Expiring(Controller):
    """Deletes objects at a time they tell themselves."""

    resource: Resource

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._objects = self.informer(self.resource, handler=self._changed)

    def ends_at(self, obj: Object) -> float | None:
        raise NotImplementedError

    async def reconcile(self, key: str) -> None:
        obj = self._objects.get(key)
        end = self.ends_at(obj) if obj is not None else None
        if obj is None or end is None:
            return
        left = end - self.clock()
        if left > 0:
            self.queue.add_after(key, left)
            return
        try:
            await self.client.delete(self.resource, name_of(obj), namespace_of(obj), uid=uid_of(obj))
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self.ends_at(new) is not None:
            self.enqueue(old, new)


class CertificateCleanerController(Expiring):
    name = "certificatesigningrequest-cleaner-controller"
    workers = 1
    resource = CERTIFICATE_SIGNING_REQUESTS

    def ends_at(self, obj: Object) -> float | None:
        made = parse_time(obj["metadata"].get("creationTimestamp")) or 0.0
        status = obj.get("status") or {}
        ends = []
        for kind in ("Approved", "Denied", "Failed"):
            condition = condition_of(obj, kind)
            if condition and (kind != "Approved" or status.get("certificate")):
                ends.append((parse_time(condition.get("lastUpdateTime")) or made) + DECIDED_S)
        if not condition_of(obj, "Approved") and not condition_of(obj, "Denied"):
            ends.append(made + PENDING_S)
        elif status.get("certificate"):
            ends.append(_expiry(status["certificate"]))
        return min(ends) if ends else None


class TokenCleanerController(Expiring):
    name = "token-cleaner-controller"
    workers = 1
    resource = SECRETS

    def ends_at(self, obj: Object) -> float | None:
        if obj.get("type") != TOKEN_TYPE or namespace_of(obj) != "kube-system":
            return None
        return token_end(obj)


def token_end(secret: Object) -> float | None:
    """When a bootstrap token ends, where it says so."""
    encoded = (secret.get("data") or {}).get("expiration")
    if not encoded:
        return None
    try:
        return dt.datetime.fromisoformat(b64decode(encoded).decode()).timestamp()
    except ValueError:
        return 0.0  # upstream: a time that cannot be read has passed


def _expiry(encoded: str) -> float:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(b64decode(encoded)).not_valid_after_utc.timestamp()
    except ValueError:
        return float("inf")
