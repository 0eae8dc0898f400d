"""What a namespace's labels say: a level at a version for each of enforce, audit and warn.

A label that cannot be read counts as restricted:latest to enforce (fail closed) and as privileged to audit and to warn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from atoll.apiserver.kinds.causes import Causes

PREFIX = "pod-security.kubernetes.io/"
PRIVILEGED, BASELINE, RESTRICTED = LEVELS = ("privileged", "baseline", "restricted")
LATEST = 1 << 30  # the minor version that "latest" stands for: newer than all
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,8})")


class LevelVersion(NamedTuple):
    """A level of the standard, as the minor release 1.`minor` of Kubernetes has defined it."""

    level: str = PRIVILEGED
    minor: int = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor == LATEST else f'v1.{self.minor}'}"

    def is_stricter_than(self, other: LevelVersion) -> bool:
        return LEVELS.index(self.level) > LEVELS.index(other.level)


@dataclass(frozen=True, slots=True)
class Policy:
    enforce: LevelVersion
    audit: LevelVersion
    warn: LevelVersion

    @property
    def asks_nothing(self) -> bool:
        return self.enforce.level == self.audit.level == self.warn.level == PRIVILEGED


_NOTHING = Policy(LevelVersion(), LevelVersion(), LevelVersion())


def policy_of(labels: Mapping[str, str] | None) -> tuple[Policy, Causes]:
    """The policy, and what is wrong with the labels. A namespace that only enforces is warned of the same, as upstream since 1.26."""
    causes = Causes()
    if not labels or not any(label.startswith(PREFIX) for label in labels):
        return _NOTHING, causes
    enforce = _mode(labels, "enforce", RESTRICTED, causes)
    audit = _mode(labels, "audit", PRIVILEGED, causes)
    warn = _mode(labels, "warn", PRIVILEGED, causes)
    if f"{PREFIX}warn" not in labels and enforce.is_stricter_than(warn):
        warn = LevelVersion(enforce.level, warn.minor if f"{PREFIX}warn-version" in labels else enforce.minor)
    return Policy(enforce, audit, warn), causes


def _mode(labels: Mapping[str, str], mode: str, unreadable: str, causes: Causes) -> LevelVersion:
    label = f"{PREFIX}{mode}"
    level = labels.get(label, PRIVILEGED)
    if level not in LEVELS:
        causes.invalid(f"metadata.labels[{label}]", level, f"must be one of {', '.join(LEVELS)}")
        level = unreadable
    version = labels.get(f"{label}-version", "latest")
    match = _VERSION.fullmatch(version)
    if match is None and version != "latest":
        causes.invalid(f"metadata.labels[{label}-version]", version, 'must be "latest" or "v1.x"')
    return LevelVersion(level, int(match[1]) if match else LATEST)
