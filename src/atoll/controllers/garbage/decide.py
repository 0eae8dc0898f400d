"""What to do with one object, given what is known of its owners. Pure.

An object lives while one owner lives. References to owners that are gone, or that only wait for their dependents to end, are then
removed. With no living owner it is deleted: in the foreground when such a waiting owner asks for it, and otherwise as its own
finalizers say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from atoll.client.objects import Object
from atoll.client.protocol import Propagation


class OwnerState(Enum):
    """How an owner stands, as the controller found it."""

    SOLID = "lives"
    ABSENT = "is gone, or another object has its name now"
    WAITING = "is being deleted and waits for its dependents"


@dataclass(frozen=True, slots=True)
class Keep:
    """Live on, with these owner references when `owners` is not None."""

    owners: list[Object] | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    propagation: Propagation
    release_dependents: bool = False  # a cycle: each waits for the other, so the dependents must stop blocking


def decide(
    owners: Sequence[Object],
    states: Mapping[str, OwnerState],
    finalizers: frozenset[str],
    *,
    has_dependents: bool,
    waiting_dependents: bool = False,
) -> Keep | Delete:
    """`states` tells of each owner's uid; `waiting_dependents`: some dependent is itself being deleted in the foreground."""
    if not owners:
        return Keep()
    solid = [owner for owner in owners if states[owner["uid"]] is OwnerState.SOLID]
    if solid:
        return Keep(solid if len(solid) < len(owners) else None)
    if has_dependents and any(states[owner["uid"]] is OwnerState.WAITING for owner in owners):
        return Delete("Foreground", release_dependents=waiting_dependents)
    if "orphan" in finalizers:
        return Delete("Orphan")
    if "foregroundDeletion" in finalizers:
        return Delete("Foreground")
    return Delete("Background")
