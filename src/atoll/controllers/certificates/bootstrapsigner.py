"""The configuration by which a machine finds the cluster is signed with each bootstrap token that is for signing.

Who has a token and no certificate authority yet reads the ConfigMap `cluster-info` of kube-public and trusts its kubeconfig by the
signature under `jws-kubeconfig-<token id>`: a JSON Web Signature (RFC 7515, HS256 with the token's secret) whose payload is left out, for
it stands beside it (appendix F). As kube-controller-manager's bootstrapsigner.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, urlsafe_b64encode

import orjson

from atoll.client.objects import Object, copy_of, is_deleting, key_of, make_key, name_of, namespace_of
from atoll.client.protocol import is_not_found
from atoll.client.resources import CONFIG_MAPS, SECRETS
from atoll.controllers.base import Context, Controller
from atoll.controllers.certificates.cleaner import TOKEN_TYPE, token_end
from atoll.errors import StatusError

NAMESPACE, CLUSTER_INFO = "kube-public", "cluster-info"
KUBECONFIG, SIGNATURE = "kubeconfig", "jws-kubeconfig-"
_KEY = make_key(NAMESPACE, CLUSTER_INFO)


def signed(content: str, token_id: str, token_secret: str) -> str:
    """The signature of CONTENT with its payload left out."""
    header = _encode(orjson.dumps({"alg": "HS256", "kid": token_id}))
    digest = hmac.digest(token_secret.encode(), b"%b.%b" % (header, _encode(content.encode())), hashlib.sha256)
    return f"{header.decode()}..{_encode(digest).decode()}"


class BootstrapSigner(Controller):
    name = "bootstrap-signer-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._secrets = self.informer(SECRETS, handler=self._secret_changed)
        self._maps = self.informer(CONFIG_MAPS, handler=self._map_changed)

    async def reconcile(self, key: str) -> None:
        info = self._maps.get(key)
        if info is None or is_deleting(info):
            return
        content = (info.get("data") or {}).get(KUBECONFIG)
        wanted = {} if content is None else {SIGNATURE + id_: signed(content, id_, secret) for id_, secret in self._tokens()}
        present = {name: value for name, value in (info.get("data") or {}).items() if name.startswith(SIGNATURE)}
        if present == wanted:
            return
        changed = copy_of(info)
        changed["data"] = {name: value for name, value in changed["data"].items() if name not in present} | wanted
        try:
            await self.client.update(CONFIG_MAPS, changed)
        except StatusError as error:
            if not is_not_found(error):
                raise

    def _tokens(self) -> list[tuple[str, str]]:
        """Ids and secrets of the tokens that sign now. At their end the cleaner deletes them, which brings us here again."""
        found = []
        for secret in self._secrets.list():
            end = token_end(secret)
            if not _is_token(secret) or is_deleting(secret) or (end is not None and end <= self.clock()):
                continue
            try:
                data = {name: b64decode(value).decode() for name, value in (secret.get("data") or {}).items()}
            except (binascii.Error, UnicodeDecodeError):
                continue
            id_, key = data.get("token-id", ""), data.get("token-secret", "")
            if data.get("usage-bootstrap-signing") == "true" and key and name_of(secret) == f"bootstrap-token-{id_}":
                found.append((id_, key))
        return found

    def _secret_changed(self, old: Object | None, new: Object | None) -> None:
        if any(secret is not None and _is_token(secret) for secret in (old, new)):
            self.queue.add(_KEY)

    def _map_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and key_of(new) == _KEY:
            self.queue.add(_KEY)


def _is_token(secret: Object) -> bool:
    return secret.get("type") == TOKEN_TYPE and namespace_of(secret) == "kube-system"


def _encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
