"""What a build is asked for: the parameters of POST /build, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """`arguments` are --build-arg values (None: named without a value). `limits` are HostConfig fields for RUN steps.

    `remote` is where the context is fetched from, "" where the client sends it. `contexts` are named contexts: what stands for a stage or
    an image of that name. `uncached` are the stages that --no-cache-filter names. The image is as BuildKit makes it where `like_buildkit`
    is set, as the classic builder does otherwise; with `inline_cache` its configuration tells other builders of its steps.
    """

    dockerfile: str = "Dockerfile"
    tags: Sequence[str] = ()
    target: str = ""
    arguments: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"
    platform: str = ""
    remote: str = ""
    contexts: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    uncached: Sequence[str] = ()
    pull: bool = False
    quiet: bool = False
    limits: Mapping[str, Any] = field(default_factory=dict)
    like_buildkit: bool = False
    inline_cache: bool = False
