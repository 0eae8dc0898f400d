"""Secrets of type kubernetes.io/service-account-token get a token of their account, as those who ask for one that lasts expect.

The token is bound to the secret: it ends with the secret, which ends with the account. Upstream's of this kind name no end; ours is good
for the longest that a request may ask for, 136 years.
"""

from __future__ import annotations

from base64 import b64encode

from atoll.client.objects import Object, annotations_of, copy_of, is_deleting, key_of, make_key, name_of, namespace_of, uid_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import SECRETS, SERVICE_ACCOUNTS
from atoll.controllers.base import Context, Controller
from atoll.errors import StatusError

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LASTING_S = 1 << 32
BY_ACCOUNT = "account"


def account_index(secret: Object) -> list[str]:
    if secret.get("type") != TYPE:
        return []
    return [make_key(namespace_of(secret), annotations_of(secret).get(NAME, ""))]


class TokenController(Controller):
    name = "serviceaccount-token-controller"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._secrets = self.informer(SECRETS, handler=self._secret_changed)
        self._secrets.add_index(BY_ACCOUNT, account_index)
        self.informer(SERVICE_ACCOUNTS, handler=self._account_changed)

    async def reconcile(self, key: str) -> None:
        secret = self._secrets.get(key)
        if secret is None or secret.get("type") != TYPE or is_deleting(secret):
            return
        account = await self._account_of(secret)
        named = annotations_of(secret).get(UID)
        try:
            if account is None or (named and named != uid_of(account)):
                await self.client.delete(SECRETS, name_of(secret), namespace_of(secret), uid=uid_of(secret))
            elif not named or "token" not in (secret.get("data") or {}):
                await self._fill(secret, account)
        except StatusError as error:
            if not is_not_found(error):
                raise

    async def _account_of(self, secret: Object) -> Object | None:
        """From the server: the informer may not have heard of an account that was made a moment ago."""
        try:
            return await self.client.get(SERVICE_ACCOUNTS, annotations_of(secret).get(NAME, ""), namespace_of(secret))
        except StatusError as error:
            if is_not_found(error):
                return None
            raise

    async def _fill(self, secret: Object, account: Object) -> None:
        namespace = namespace_of(secret) or ""
        reference = {"apiVersion": "v1", "kind": SECRETS.kind, "name": name_of(secret), "uid": uid_of(secret)}
        request = {"metadata": {}, "spec": {"expirationSeconds": LASTING_S, "boundObjectRef": reference}}
        made = await self.client.create(SERVICE_ACCOUNTS, request, namespace, name=name_of(account), subresource="token")
        changed = copy_of(secret)
        changed["metadata"].setdefault("annotations", {})[UID] = uid_of(account)
        data = {"token": made["status"]["token"], "namespace": namespace, "ca.crt": self.config.root_ca}
        changed.setdefault("data", {}).update({key: b64encode(value.encode()).decode() for key, value in data.items() if value})
        await self.client.update(SECRETS, changed)

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and new.get("type") == TYPE:
            self.enqueue(old, new)

    def _account_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            for secret in self._secrets.by_index(BY_ACCOUNT, key_of(old)):
                self.queue.add(key_of(secret))
