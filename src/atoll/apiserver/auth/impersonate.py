"""Impersonation: acting as another, for those who are allowed to (kubectl --as)."""

from __future__ import annotations

from urllib.parse import unquote

from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.call import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User
from atoll.apiserver.machinery import statuses
from atoll.errors import StatusError
from atoll.http import Request

_PREFIX = "impersonate-"
_USER = "impersonate-user"
_GROUP = "impersonate-group"
_UID = "impersonate-uid"
_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"


def impersonate(user: User, request: Request, authorizer: Authorizer) -> User:
    """The user the request is to be served as. Raises StatusError 400 for half an impersonation, 403 for one that is not allowed."""
    headers = request.headers
    if not any(header.startswith(_PREFIX) for header in headers.names()):
        return user
    name = headers.get(_USER)
    groups = headers.getall(_GROUP)
    uid = headers.get(_UID)
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            extra.setdefault(unquote(header[len(_EXTRA) :].lower()), []).append(value)
    if name is None:
        if groups or uid is not None or extra:
            raise statuses.bad_request("requested impersonation without impersonating a user")
        return user
    _demand(user, authorizer, _subject(name))
    for group in groups:
        _demand(user, authorizer, Attributes("impersonate", "", "groups", "", group))
    for key, values in extra.items():
        for value in values:
            _demand(user, authorizer, Attributes("impersonate", "authentication.k8s.io", f"userextras/{key}", "", value))
    if uid is not None:
        _demand(user, authorizer, Attributes("impersonate", "authentication.k8s.io", "uids", "", uid))
    if name.startswith(_ACCOUNT) and not groups:
        namespace = name.removeprefix(_ACCOUNT).partition(":")[0]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    if AUTHENTICATED not in groups and UNAUTHENTICATED not in groups:
        groups = [*groups, UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED]
    return User(name, tuple(groups), uid or "", {key: tuple(values) for key, values in extra.items()})


def _subject(name: str) -> Attributes:
    if name.startswith(_ACCOUNT):
        namespace, _, account = name.removeprefix(_ACCOUNT).partition(":")
        return Attributes("impersonate", "", "serviceaccounts", namespace, account)
    return Attributes("impersonate", "", "users", "", name)


def _demand(user: User, authorizer: Authorizer, wanted: Attributes) -> None:
    if not authorizer.allows(user, wanted):
        details = {"name": wanted.name, "kind": wanted.resource}
        message = f'{wanted.resource} "{wanted.name}" is forbidden: {authorizer.refusal(user, wanted)}'
        raise StatusError(403, "Forbidden", message, details)
