"""Objects as rows: the columns `kubectl get` shows, computed on the server as upstream's printers do.

A kind's columns come from the table of printers below, from `Kind.columns` for custom resources, and are NAME and CREATED AT for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atoll.apiserver.machinery.kind import Kind


def column_definitions(kind: Kind) -> list[dict[str, Any]]:
    """`columnDefinitions` of a meta.k8s.io/v1 Table."""
    raise NotImplementedError


def cells(kind: Kind, obj: Mapping[str, Any], now: float) -> list[Any]:
    """One row's cells, wide ones included. `now` is seconds since the epoch: ages are durations to it."""
    raise NotImplementedError
