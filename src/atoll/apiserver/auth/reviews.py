"""The review kinds: questions about tokens and permissions, answered and not stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from atoll.apiserver.auth.authenticate import Authenticator
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.oidc import KeysWanted
from atoll.apiserver.auth.rules import NODE_FIELDS, Attributes, Rule
from atoll.apiserver.call import Call, User
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.machinery.selectors import parse_fields
from atoll.client.signers import NODES_GROUP
from atoll.errors import StatusError, Unauthenticated
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
        return self._verdict(call, call.user, obj.get("spec") or {})

    def _access(self, call: Call, obj: Object) -> dict[str, Any]:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            raise _invalid(call, "spec.user", "", "at least one of user or group must be specified")
        extra = {name.lower(): tuple(values) for name, values in (spec.get("extra") or {}).items()}
        return self._verdict(call, User(spec.get("user") or "", tuple(spec.get("groups") or ()), spec.get("uid") or "", extra), spec)

    def _local_access(self, call: Call, obj: Object) -> dict[str, Any]:
        namespace = ((obj.get("spec") or {}).get("resourceAttributes") or {}).get("namespace")
        if namespace != call.namespace:
            raise _invalid(call, "spec.resourceAttributes.namespace", namespace or "", "must match metadata.namespace")
        return self._access(call, obj)

    def _verdict(self, call: Call, user: User, spec: dict[str, Any]) -> dict[str, Any]:
        wanted = _attributes(call, spec)
        told: dict[str, Any] = {"allowed": self._authorizer.allows(user, wanted)}
        reason = self._authorizer.reason(user, wanted)
        return {**told, "reason": reason} if reason else told

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


def _invalid(call: Call, path: str, value: Any, why: str) -> StatusError:
    causes = Causes()
    causes.invalid(path, value, why)
    return statuses.invalid(call.kind, "", causes)


def _attributes(call: Call, spec: dict[str, Any]) -> Attributes:
    resource = spec.get("resourceAttributes")
    path = spec.get("nonResourceAttributes")
    if path is not None and resource is None:
        return Attributes(path.get("verb") or "", path=path.get("path") or "/")
    if resource is None:
        raise _invalid(
            call, "spec.resourceAttributes", None, "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        )
    if path is not None:
        raise _invalid(call, "spec.nonResourceAttributes", path, "cannot be specified in combination with resourceAttributes")
    plural = resource.get("resource") or ""
    return Attributes(
        resource.get("verb") or "",
        resource.get("group") or "",
        f"{plural}/{resource['subresource']}" if resource.get("subresource") else plural,
        resource.get("namespace") or "",
        resource.get("name") or "",
        node=_node_asked(resource.get("fieldSelector") or {}),
    )


def _node_asked(selector: dict[str, Any]) -> str:
    """The node a list would be held to, by the selector given as requirements or as text."""
    for requirement in selector.get("requirements") or ():
        values: list[str] = requirement.get("values") or []
        if requirement.get("key") in NODE_FIELDS and requirement.get("operator") == "In" and len(values) == 1:
            return values[0]
    terms = parse_fields(selector["rawSelector"]) if selector.get("rawSelector") else ()
    return next((term.value for term in terms if term.equal and term.field in NODE_FIELDS), "")


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
