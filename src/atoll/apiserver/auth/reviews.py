"""The review kinds: questions about tokens and permissions, answered and not stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from atoll.apiserver.auth.authenticate import Authenticator
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.oidc import KeysWanted
from atoll.apiserver.auth.rules import Attributes, Rule
from atoll.apiserver.call import Call, User
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.cacher import Object
from atoll.client.signers import NODES_GROUP
from atoll.errors import Unauthenticated
from atoll.units import timestamp_seconds


class Reviews:
    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._answers: dict[str, Callable[[Call, Object], dict[str, Any]]] = {
            "SelfSubjectReview": self._who,
            "TokenReview": self._token,
            "SelfSubjectAccessReview": self._own_access,
            "SubjectAccessReview": self._access,
            "LocalSubjectAccessReview": self._local_access,
            "SelfSubjectRulesReview": self._rules,
        }

    def serves(self, kind: str) -> bool:
        return kind in self._answers

    async def answer(self, call: Call, obj: Object) -> Object:
        """The review with its status. Raises StatusError 400."""
        try:
            return self._answer(call, obj)
        except KeysWanted as wanted:
            with contextlib.suppress(Unauthenticated):
                await wanted.issuer.fetch()
            return self._answer(call, obj)

    def _answer(self, call: Call, obj: Object) -> Object:
        metadata = dict(obj.get("metadata") or {})
        metadata["creationTimestamp"] = timestamp_seconds() if obj["kind"] == "SelfSubjectReview" else None
        return {**obj, "metadata": metadata, "status": self._answers[obj["kind"]](call, obj)}

    def _who(self, call: Call, obj: Object) -> dict[str, Any]:
        return {"userInfo": _user_info(call.user)}

    def _token(self, call: Call, obj: Object) -> dict[str, Any]:
        spec = obj.get("spec") or {}
        token = spec.get("token")
        if not token:
            raise statuses.bad_request("token is required for TokenReview in authentication")
        try:
            user, audiences = self._authenticator.token(token, spec.get("audiences"))
        except KeysWanted:
            raise
        except Unauthenticated as error:
            return {"user": {}, "error": f"[invalid bearer token, {error}]"}
        return {"authenticated": True, "user": _user_info(user), "audiences": audiences}

    def _own_access(self, call: Call, obj: Object) -> dict[str, Any]:
        return self._verdict(call.user, obj.get("spec") or {})

    def _access(self, call: Call, obj: Object) -> dict[str, Any]:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            raise statuses.bad_request("spec.user: at least one of user or group must be specified")
        return self._verdict(User(spec.get("user") or "", tuple(spec.get("groups") or ())), spec)

    def _local_access(self, call: Call, obj: Object) -> dict[str, Any]:
        namespace = ((obj.get("spec") or {}).get("resourceAttributes") or {}).get("namespace")
        if namespace != call.namespace:
            raise statuses.bad_request(f"spec.resourceAttributes.namespace must match metadata.namespace: {namespace} != {call.namespace}")
        return self._access(call, obj)

    def _verdict(self, user: User, spec: dict[str, Any]) -> dict[str, Any]:
        return {"allowed": self._authorizer.allows(user, _attributes(spec))}

    def _rules(self, call: Call, obj: Object) -> dict[str, Any]:
        namespace = (obj.get("spec") or {}).get("namespace")
        if not namespace:
            raise statuses.bad_request("no namespace on request")
        rules = [rule for where, rule in self._authorizer.rules_of(call.user) if where in ("", namespace)]
        if call.user.is_master:
            everything = frozenset({"*"})
            rules = [Rule(everything, everything, everything), Rule(everything, paths=("*",))]
        return {
            "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
            "nonResourceRules": [{"verbs": sorted(rule.verbs), "nonResourceURLs": list(rule.paths)} for rule in rules if rule.paths],
            "incomplete": NODES_GROUP in call.user.groups,
            **({"evaluationError": "node authorizer does not support user rule resolution"} if NODES_GROUP in call.user.groups else {}),
        }


def _attributes(spec: dict[str, Any]) -> Attributes:
    resource = spec.get("resourceAttributes")
    path = spec.get("nonResourceAttributes")
    if path is not None and resource is None:
        return Attributes(path.get("verb") or "", path=path.get("path") or "/")
    if resource is None or path is not None:
        raise statuses.bad_request("spec: exactly one of nonResourceAttributes or resourceAttributes must be specified")
    plural = resource.get("resource") or ""
    return Attributes(
        resource.get("verb") or "",
        resource.get("group") or "",
        f"{plural}/{resource['subresource']}" if resource.get("subresource") else plural,
        resource.get("namespace") or "",
        resource.get("name") or "",
    )


def _resource_rule(rule: Rule) -> dict[str, Any]:
    shown = {"verbs": sorted(rule.verbs), "apiGroups": sorted(rule.groups), "resources": sorted(rule.resources)}
    return {**shown, "resourceNames": sorted(rule.names)} if rule.names else shown


def _user_info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info
