"""CEL as admission speaks it: the variables of the environment, and programs compiled in it.

`object`, `oldObject`, `params` and `namespaceObject` are dynamic, null where there is none; `request` is the AdmissionRequest without its
objects; `authorizer` asks the server's own authoriser; `variables` are a policy's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.admission.policies.access import Access
from atoll.apiserver.admission.policies.source import bind_variables, literals_to_maps
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.customresources.cel import CelError, Expression, environment, library

TEXT_MAX = 20_000  # characters of one expression: what compiles in a fraction of a second
DYNAMIC = ("object", "oldObject", "request", "params", "namespaceObject")
Values = Mapping[str, Any]


class Language:
    """One environment for all policies of a server; without an authoriser it only compiles. `access` is what `authorizer` asks."""

    def __init__(self, authorizer: Authorizer | None = None) -> None:
        cel = library()
        self.access = Access(authorizer) if authorizer is not None else None
        functions = (self.access or Access(_NOBODY)).functions(cel)
        escape = cel.Overload("jsonpatch_escape_key", cel.Type.STRING, [cel.Type.STRING], False, _escaped)
        variables = dict.fromkeys(DYNAMIC, cel.Type.DYN) | {"authorizer": cel.Type.MAP}
        self._environment = environment(variables, (*functions, cel.FunctionDecl("jsonpatch.escapeKey", [escape])))

    def program(self, text: str, variables: Mapping[str, str] | None = None, returns: tuple[str, ...] = ()) -> Expression:
        """Raises CelError: what the compiler says, or that the type is none of `returns`."""
        if len(text) > TEXT_MAX:
            raise CelError(f"expression code point size exceeds limit: size: {len(text)}, limit {TEXT_MAX}")
        source = literals_to_maps(bind_variables(text, variables or {}))
        compiled = Expression(source, {}, self._environment)
        if returns and compiled.returns not in (*returns, "DYN"):
            raise CelError(f"must evaluate to {' or '.join(_TYPE_NAMES.get(name, name.lower()) for name in returns)}")
        return compiled


_TYPE_NAMES = {"NULL": "null_type"}
_NOBODY: Any = None  # the authoriser of an environment in which nothing is evaluated


def _escaped(key: str) -> str:
    """RFC 6901, 3."""
    return key.replace("~", "~0").replace("/", "~1")
