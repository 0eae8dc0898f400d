"""Why a volume cannot be had."""

from __future__ import annotations

from atoll.errors import AtollError


class VolumeError(AtollError):
    """The message is that of the pod's FailedMount event. Most causes pass: it is tried again."""
