"""A pod against a level of the standard at a version: which checks count, and what they find."""

from __future__ import annotations

from functools import cache

from atoll.apiserver.admission.podsecurity import baseline, restricted
from atoll.apiserver.admission.podsecurity.pod import Check, Subject, Violation
from atoll.apiserver.admission.podsecurity.policy import BASELINE, LATEST, PRIVILEGED, LevelVersion

_NEWEST = max(since for _, since, _ in (*baseline.CHECKS, *restricted.CHECKS))


def violations(wanted: LevelVersion, subject: Subject) -> list[Violation]:
    """In upstream's order: the baseline's first."""
    if wanted.level == PRIVILEGED:
        return []
    return [found for check in _checks(wanted.level, min(wanted.minor, _NEWEST)) if (found := check(subject)) is not None]


def details(found: list[Violation]) -> str:
    return ", ".join(f"{violation.reason} ({violation.detail})" for violation in found)


def reasons(found: list[Violation]) -> str:
    return ", ".join(violation.reason for violation in found)


@cache
def _checks(level: str, minor: int) -> tuple[Check, ...]:
    low = _at(baseline.CHECKS, minor)
    if level == BASELINE:
        return tuple(low.values())
    high = _at(restricted.CHECKS, minor)
    return (*(check for key, check in low.items() if key not in high), *high.values())


def _at(checks: tuple[tuple[str, int, Check], ...], minor: int) -> dict[str, Check]:
    return {key: check for key, since, check in checks if since <= minor <= LATEST}
