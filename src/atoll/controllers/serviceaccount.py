"""What every namespace gets by itself: the service account `default`, and the certificate authority that its pods trust.

Two controllers of one shape: the key is the namespace, the thing is made when missing and mended when changed.
"""

from __future__ import annotations

from atoll.client.objects import Object, is_deleting, make_key, namespace_of
from atoll.client.protocol import is_already_exists, is_not_found
from atoll.client.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from atoll.controllers.base import Context, Controller
from atoll.controllers.replicaset import is_namespace_terminating
from atoll.errors import StatusError

DEFAULT_ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or "
    "kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


class ServiceAccountController(Controller):
    name = "serviceaccount-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.informer(NAMESPACES, handler=self.enqueue)
        self._accounts = self.informer(SERVICE_ACCOUNTS, handler=self._account_changed)

    async def reconcile(self, key: str) -> None:
        namespace = self._namespaces.get(key)
        if namespace is None or is_deleting(namespace) or self._accounts.get(make_key(key, DEFAULT_ACCOUNT)):
            return
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT_ACCOUNT, "namespace": key}}
        try:
            await self.client.create(SERVICE_ACCOUNTS, account, key)
        except StatusError as error:
            if not (is_already_exists(error) or is_namespace_terminating(error)):
                raise

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is None:
            self.queue.add(namespace_of(old) or "")


class RootCaPublisher(Controller):
    name = "root-ca-certificate-publisher-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = self.informer(NAMESPACES, handler=self.enqueue)
        self._maps = self.informer(CONFIG_MAPS, handler=self._map_changed)

    async def reconcile(self, key: str) -> None:
        namespace = self._namespaces.get(key)
        if namespace is None or is_deleting(namespace) or not self.config.root_ca:
            return
        data = {"ca.crt": self.config.root_ca}
        existing = self._maps.get(make_key(key, ROOT_CA))
        if existing is not None and existing.get("data") == data:
            return
        wanted: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": ROOT_CA, "namespace": key, "annotations": {"kubernetes.io/description": _DESCRIPTION}},
            "data": data,
        }
        try:
            if existing is None:
                await self.client.create(CONFIG_MAPS, wanted, key)
            else:
                await self.client.update(CONFIG_MAPS, wanted)
        except StatusError as error:
            if not (is_already_exists(error) or is_not_found(error) or is_namespace_terminating(error)):
                raise

    def _map_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        if obj["metadata"]["name"] == ROOT_CA:
            self.queue.add(namespace_of(obj) or "")
