"""`authorizer` in CEL: what a policy asks the server's own authoriser about the request's user, or about a service account.

The values that expressions pass along are maps of text; the authoriser itself and the user of the request stand in the `Access` that the
functions were made for, set before each evaluation.
"""

from __future__ import annotations

from typing import Any

from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.rules import Attributes
from atoll.apiserver.call import AUTHENTICATED, Call, User

_ACCOUNT, _PATH, _GROUP, _ALLOWED, _WHY = "account", "path", "group", "allowed", "why"
_EMPTY = {"resource": "", "subresource": "", "namespace": "", "name": ""}


class Access:
    """`user` and `call` are those of the request under evaluation."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self.user: User | None = None

    def value(self, call: Call) -> dict[str, Any]:
        """The variable `authorizer` for a request."""
        self.user = call.user
        face = call.face
        asked = {
            _ACCOUNT: "",
            _GROUP: face.group,
            "resource": face.plural,
            "subresource": call.subresource,
            "namespace": call.namespace or "",
            "name": call.name or "",
        }
        return {_ACCOUNT: "", "requestResource": asked}

    def check(self, asked: dict[str, Any], verb: str) -> dict[str, str]:
        account = str(asked.get(_ACCOUNT) or "")
        user = _account_user(account) if account else self.user
        assert user is not None
        if _PATH in asked:
            wanted = Attributes(verb, path=asked[_PATH])
        else:
            sub = asked["subresource"]
            resource = f"{asked['resource']}/{sub}" if sub else asked["resource"]
            wanted = Attributes(verb, asked[_GROUP], resource, asked["namespace"], asked["name"])
        allowed = self._authorizer.allows(user, wanted)
        return {_ALLOWED: "true" if allowed else "", _WHY: "" if allowed else self._authorizer.refusal(user, wanted)}

    def functions(self, cel: Any) -> tuple[Any, ...]:
        types = cel.Type
        text, truth, opaque = types.STRING, types.BOOL, types.MAP

        def member(name: str, returns: Any, takes: list[Any], implementation: Any) -> Any:
            return cel.FunctionDecl(name, [cel.Overload(f"authorizer_{name}", returns, [opaque, *takes], True, implementation)])

        def narrowing(name: str) -> Any:
            return member(name, opaque, [text], lambda asked, value: {**asked, name: value})

        return (
            member("path", opaque, [text], lambda asked, path: {_ACCOUNT: asked[_ACCOUNT], _PATH: path}),
            member("serviceAccount", opaque, [text, text], lambda asked, space, name: {**asked, _ACCOUNT: f"{space}:{name}"}),
            member("group", opaque, [text], lambda asked, group: {_ACCOUNT: asked[_ACCOUNT], _GROUP: group, **_EMPTY}),
            *(narrowing(name) for name in ("resource", "subresource", "namespace", "name")),
            member("fieldSelector", opaque, [text], lambda asked, _: asked),
            member("labelSelector", opaque, [text], lambda asked, _: asked),
            member("check", opaque, [text], self.check),
            member("allowed", truth, [], lambda decision: decision[_ALLOWED] == "true"),
            member("errored", truth, [], lambda _: False),
            member("error", text, [], lambda _: ""),
            member("reason", text, [], lambda decision: decision[_WHY]),
        )


def _account_user(account: str) -> User:
    namespace = account.partition(":")[0]
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{account}", groups)
