"""Service-account tokens: issuing them (TokenRequest) and telling whose a token is.

A token is bound: it is good for its audiences, until it expires, while its service account lives, and, when it was issued for a pod, secret
or node, while that lives. Signatures are checked once for each token; what can change is looked up each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atoll.apiserver.auth.jwt import TokenSigner
from atoll.apiserver.call import AUTHENTICATED, Call, User
from atoll.apiserver.core import Core
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.machinery.kind import Cause
from atoll.errors import Unauthenticated
from atoll.units import timestamp_seconds

KUBERNETES = "kubernetes.io"
EXPIRY_MIN_S = 600  # upstream's bounds
EXPIRY_MAX_S = 1 << 32
EXPIRY_S = 3600
LEEWAY_S = 10  # how far clocks may differ, for nbf
VERIFIED_MAX = 4_096  # tokens whose signature is remembered
_BINDABLE = {("Pod", "v1"): "pods", ("Secret", "v1"): "secrets", ("Node", "v1"): "nodes"}


class ServiceAccountTokens:
    def __init__(self, core: Core, signer: TokenSigner, issuer: str, clock: Callable[[], float]) -> None:
        self._core = core
        self.signer = signer
        self.issuer = issuer
        self._clock = clock
        self._verified: dict[str, dict[str, Any]] = {}

    def authenticate(self, token: str, audiences: Sequence[str] | None = None) -> tuple[User, list[str]]:
        """The service account of a token, and the audiences it is good for among those asked. Raises Unauthenticated."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self.signer.verify(token)
            if len(self._verified) >= VERIFIED_MAX:
                self._verified.clear()
            self._verified[token] = claims
        now = self._clock()
        if claims.get("iss") != self.issuer:
            raise Unauthenticated("the token is of another issuer")
        if not _number(claims.get("nbf")) - LEEWAY_S <= now < _number(claims.get("exp")):
            raise Unauthenticated("the token has expired")
        given = claims.get("aud")
        good = [audience for audience in audiences or (self.issuer,) if isinstance(given, list) and audience in given]
        if not good:
            raise Unauthenticated("the token is for another audience")
        return self._user(claims.get(KUBERNETES) or {}, claims), good

    def _user(self, private: Mapping[str, Any], claims: Mapping[str, Any]) -> User:
        namespace = private.get("namespace", "")
        account = private.get("serviceaccount") or {}
        name = account.get("name", "")
        self._must_live("serviceaccounts", namespace, account)
        extra: dict[str, tuple[str, ...]] = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)}
        for kind, plural in (("pod", "pods"), ("secret", "secrets"), ("node", "nodes")):
            bound = private.get(kind)
            if not bound:
                continue
            if kind != "node" or "pod" not in private:
                self._must_live(plural, "" if kind == "node" else namespace, bound)
            if kind != "secret":
                extra[f"authentication.kubernetes.io/{kind}-name"] = (bound["name"],)
                extra[f"authentication.kubernetes.io/{kind}-uid"] = (bound.get("uid", ""),)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(f"system:serviceaccount:{namespace}:{name}", groups, account.get("uid", ""), extra)

    def _must_live(self, plural: str, namespace: str, reference: Mapping[str, Any]) -> None:
        item = self._core.find("", "v1", plural, str(reference.get("name")), namespace or None)
        if item is None or item.obj["metadata"]["uid"] != reference.get("uid"):
            raise Unauthenticated(f"the token's {plural.rstrip('s')} {reference.get('name')} has gone")

    def request(self, call: Call, obj: Object) -> Object:
        """Answer a TokenRequest for the service account `call` names. Raises StatusError 400, 404, 409, 422."""
        account = self._core.cacher(call.kind).get(call.key)
        if account is None:
            raise statuses.not_found(call.kind, call.name or "")
        spec = obj.get("spec") or {}
        seconds = spec.get("expirationSeconds", EXPIRY_S)
        if not EXPIRY_MIN_S <= seconds <= EXPIRY_MAX_S:
            why = (
                "may not specify a duration less than 10 minutes"
                if seconds < EXPIRY_MIN_S
                else "may not specify a duration larger than 2^32"
            )
            cause = Cause("FieldValueInvalid", f"Invalid value: {seconds}: {why}", "spec.expirationSeconds")
            raise statuses.invalid(call.kind, call.name or "", [cause])
        audiences = list(spec.get("audiences") or [self.issuer])
        metadata = account.obj["metadata"]
        private: dict[str, Any] = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
            **self._bound(call, spec.get("boundObjectRef"), metadata["name"]),
        }
        now = int(self._clock())
        import uuid

        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            KUBERNETES: private,
            "nbf": now,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
        }
        status = {"token": self.signer.sign(claims), "expirationTimestamp": timestamp_seconds(now + seconds)}
        shown = {"name": metadata["name"], "namespace": metadata["namespace"], "creationTimestamp": timestamp_seconds(now)}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": shown,
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": status,
        }

    def _bound(self, call: Call, reference: Mapping[str, Any] | None, account: str) -> dict[str, Any]:
        if not reference:
            return {}
        plural = _BINDABLE.get((str(reference.get("kind")), str(reference.get("apiVersion"))))
        if plural is None:
            raise statuses.bad_request(f"cannot bind token to object of type {reference.get('apiVersion')}, Kind={reference.get('kind')}")
        name = str(reference.get("name"))
        kind = self._core.registry.get("", "v1", plural)
        item = self._core.find("", "v1", plural, name, call.namespace if plural != "nodes" else None)
        if item is None or kind is None:
            raise statuses.not_found(kind or call.kind, name)
        metadata = item.obj["metadata"]
        if reference.get("uid") and reference["uid"] != metadata["uid"]:
            raise statuses.conflict(
                kind,
                name,
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. The object might have "
                "been deleted and then recreated",
            )
        bound: dict[str, Any] = {plural.rstrip("s"): {"name": name, "uid": metadata["uid"]}}
        if plural == "pods":
            spec = item.obj.get("spec") or {}
            if spec.get("serviceAccountName") != account:
                raise statuses.bad_request(
                    f"cannot bind token for serviceaccount {account!r} to pod running with different serviceaccount name."
                )
            node = self._core.find("", "v1", "nodes", spec.get("nodeName") or "")
            if node is not None:
                bound["node"] = {"name": spec["nodeName"], "uid": node.obj["metadata"]["uid"]}
        return bound


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
