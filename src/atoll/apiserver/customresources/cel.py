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


def environment(variables: Mapping[str, Any], functions: tuple[Any, ...] = ()) -> Any:
    """What expressions over these variables are compiled in: Kubernetes' functions, and those given."""
    cel = library()
    return cel.NewEnv(config=cel.NewEnvConfigFromYaml(_CONFIG), variables=dict(variables), functions=(*_functions(), *functions))


class Expression:
    """One compiled expression over typed variables, or in an environment that is there already. Raises CelError in the compiler's words."""

    __slots__ = ("_compiled", "_serialized", "text")

    def __init__(self, text: str, variables: Mapping[str, Any], within: Any = None) -> None:
        self.text = text
        within = within or environment(variables)
        try:
            self._compiled = within.compile(text)
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
        """The value in Python's own types. Raises CelError."""
        try:
            result = self._compiled.eval(data=dict(values))
        except RuntimeError as error:
            raise CelError(_plain(str(error))) from None
        if result.type() == library().Type.ERROR:
            raise CelError(_plain(str(result.value())))
        try:
            return result.plain_value()
        except TypeError:
            raise CelError(f"a value of type {result.type().name()} cannot be used here") from None


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
