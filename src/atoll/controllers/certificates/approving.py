"""Kubelets' client certificates are approved by themselves, for who has the right: a bootstrapping node, or a node that renews its own.

The rights are virtual subresources of the request, asked for by a SubjectAccessReview, as kube-controller-manager does.
"""

from __future__ import annotations

from atoll.client.objects import Object, condition_of, copy_of
from atoll.client.resources import CERTIFICATE_SIGNING_REQUESTS, SUBJECT_ACCESS_REVIEWS
from atoll.client.signers import KUBELET_CLIENT, is_self, problem, wanted_of
from atoll.controllers.base import Context, Controller
from atoll.controllers.certificates.requests import is_decided, request_of
from atoll.errors import InvalidInput
from atoll.units import timestamp_seconds

_RECOGNISED = (
    ("selfnodeclient", True, "Auto approving self kubelet client certificate after SubjectAccessReview."),
    ("nodeclient", False, "Auto approving kubelet client certificate after SubjectAccessReview."),
)


class CertificateApprovingController(Controller):
    name = "certificatesigningrequest-approving-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._requests = self.informer(CERTIFICATE_SIGNING_REQUESTS, handler=self.enqueue)

    async def reconcile(self, key: str) -> None:
        found = self._requests.get(key)
        if found is None or is_decided(found) or (found.get("status") or {}).get("certificate"):
            return
        spec = found["spec"]
        if spec.get("signerName") != KUBELET_CLIENT:
            return
        try:
            wanted = wanted_of(request_of(found))
        except InvalidInput:
            return  # the signer says so once somebody approves it
        if problem(KUBELET_CLIENT, wanted, spec.get("usages") or (), spec.get("username") or ""):
            return
        for right, only_self, message in _RECOGNISED:
            if (not only_self or is_self(wanted, spec)) and await self._may(spec, right):
                await self._approve(found, message)
                return

    async def _may(self, spec: Object, right: str) -> bool:
        attributes = {"group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create", "subresource": right}
        asked = {
            "user": spec.get("username") or "",
            "uid": spec.get("uid") or "",
            "groups": spec.get("groups") or [],
            "extra": spec.get("extra") or {},
            "resourceAttributes": attributes,
        }
        review = await self.client.create(SUBJECT_ACCESS_REVIEWS, {"metadata": {}, "spec": asked})
        return bool(review["status"].get("allowed"))

    async def _approve(self, found: Object, message: str) -> None:
        if condition_of(found, "Approved"):
            return
        changed = copy_of(found)
        now = timestamp_seconds(self.clock())
        condition = {"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message, "lastUpdateTime": now}
        changed.setdefault("status", {}).setdefault("conditions", []).append(condition)
        await self.client.update(CERTIFICATE_SIGNING_REQUESTS, changed, subresource="approval")
