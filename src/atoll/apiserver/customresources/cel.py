"""The CEL library behind one door: the environment that Kubernetes' rules are compiled in, and what compiling one gives.

The library is Google's C++ one (cel-expr-python), with its type checker. It bounds depth and iterations of an expression itself; what a
rule may cost for the largest object its schema allows is estimated in `cel_cost` before a definition is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from atoll.apiserver.customresources.nodes import Node
from atoll.apiserver.machinery import statuses
from atoll.errors import InvalidInput

_EXTENSIONS = ("strings", "math", "optional", "encoders", "sets", "two-var-comprehensions", "bindings")
_CONFIG = "name: kubernetes\nextensions:\n" + "".join(f"- name: {name}\n" for name in _EXTENSIONS)
_SCALARS = {"string": "STRING", "integer": "INT", "number": "DOUBLE", "boolean": "BOOL"}


def library() -> Any:
    """The library's module. Raises StatusError 501 where there is no build of it for this platform."""
    try:
        from cel_expr_python import cel
    except ImportError as error:
        raise statuses.not_supported(f"rules and patterns of custom resources need the package cel-expr-python: {error}") from None
    return cel


class CelError(InvalidInput):
    """A rule that cannot be compiled, or that fails on a value."""


@cache
def _functions() -> tuple[Any, ...]:
    from atoll.apiserver.customresources.cel_functions import declarations

    return declarations(library())


class Expression:
    """One compiled expression over typed variables. Raises CelError in the compiler's words."""

    __slots__ = ("_compiled", "_serialized", "text")

    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        cel = library()
        self.text = text
        environment = cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIG), variables=dict(variables), functions=_functions())
        try:
            self._compiled = environment.compile(text)
        except RuntimeError as error:
            raise CelError(_plain(str(error))) from None
        self._serialized: bytes | None = None

    @property
    def returns(self) -> str:
        """BOOL, STRING, DYN and so on."""
        return str(self._compiled.return_type().name())

    def serialized(self) -> bytes:
        """The checked expression as cel.expr.CheckedExpr inside a protobuf Any."""
        encoded: bytes = self._compiled.serialize()
        return encoded

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Raises CelError."""
        try:
            result = self._compiled.eval(data=dict(values))
        except RuntimeError as error:
            raise CelError(_plain(str(error))) from None
        value = result.value()
        if result.type() == library().Type.ERROR:
            raise CelError(_plain(str(value)))
        return value


def _plain(text: str) -> str:
    """The library's message in upstream's form: without its status codes, which stand before and after."""
    for code in ("INVALID_ARGUMENT", "NOT_FOUND", "UNKNOWN", "INTERNAL", "CANCELLED", "OUT_OF_RANGE"):
        text = text.removeprefix(f"{code}: ").removesuffix(f" [{code}]")
    if text.startswith('Key not found in map : "'):
        return f"no such key: {text.partition(' : ')[2].strip(chr(34))}"
    if text == "Iteration budget exceeded":
        return "validation failed due to running out of cost budget, no further validation rules will be run"
    return text.strip()


def cel_type(node: Node) -> Any:
    """The declared type of a variable that holds values of the node; objects are dynamic, their fields being checked in `cel_cost`."""
    types = library().Type
    if node.nullable or node.int_or_string:
        return types.DYN
    if node.type == "string" and node.limits.format == "byte":
        return types.BYTES
    if node.type in _SCALARS:
        return getattr(types, _SCALARS[node.type])
    if node.type == "array" and node.items is not None:
        return types.List(cel_type(node.items))
    if node.type == "object" and isinstance(node.additional, Node):
        return types.Map(types.STRING, cel_type(node.additional))
    return types.DYN
