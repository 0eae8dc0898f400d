"""A pod (or a template of one) as the checks look at it, and how they word what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Container = Mapping[str, Any]


class Violation(NamedTuple):
    """`reason` names the rule, `detail` who breaks it."""

    reason: str
    detail: str


class Subject(NamedTuple):
    """What is judged."""

    metadata: Mapping[str, Any]
    spec: Mapping[str, Any]

    @property
    def context(self) -> Mapping[str, Any]:
        return self.spec.get("securityContext") or {}

    def containers(self) -> Iterator[Container]:
        for field in ("initContainers", "containers", "ephemeralContainers"):
            yield from self.spec.get(field) or ()

    def named(self, is_bad: Callable[[Mapping[str, Any], Container], object]) -> list[str]:
        """The names of containers for whose security context and self `is_bad` holds."""
        return [str(each.get("name")) for each in self.containers() if is_bad(each.get("securityContext") or {}, each)]

    @property
    def is_windows(self) -> bool:
        return (self.spec.get("os") or {}).get("name") == "windows"

    @property
    def has_own_users(self) -> bool:
        """In a user namespace: its root is nobody on the host (KEP-127)."""
        return self.spec.get("hostUsers") is False


Check = Callable[[Subject], Violation | None]


def quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def numbered(word: str, values: Sequence[str]) -> str:
    """`container "a"`, `containers "a", "b"`."""
    return f"{word if len(values) == 1 else word + 's'} {quoted(values)}"


def setters(subject: Subject, is_bad: Callable[[Mapping[str, Any]], object]) -> str:
    """Which of the pod and its containers have a security context that is bad: `pod and container "a"`; "" for none."""
    names = subject.named(lambda context, _: is_bad(context))
    found = ["pod"] if is_bad(subject.context) else []
    return " and ".join([*found, numbered("container", names)] if names else found)
