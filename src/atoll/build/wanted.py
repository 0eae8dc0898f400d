"""What of the context a build can name, told from its file before anything runs: a client that is asked for files sends only these.

Where it cannot be told (a variable, a base image that is not here and may have triggers), it is everything.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from atoll.build import contexts, git
from atoll.build.mounts import context_sources
from atoll.build.plan import Plan
from atoll.build.state import SCRATCH
from atoll.build.syntax import Instruction, Stage
from atoll.images import ImageStore

URLS = ("http://", "https://")


class _Everything(Exception):
    """A path that may be any."""


def wanted_paths(plan: Plan, stages: Sequence[Stage], images: ImageStore) -> list[str] | None:
    """Paths, with wildcards, that STAGES take from the context; None for all of it."""
    try:
        if any(_may_have_triggers(plan, stage, images) for stage in stages):
            return None
        return sorted({_plain(path) for stage in stages for instruction in stage.body for path in _sources(instruction)})
    except _Everything:
        return None


def _may_have_triggers(plan: Plan, stage: Stage, images: ImageStore) -> bool:
    base = plan.bases[stage.index]
    if plan.base_stage(stage) is not None or base.lower() == SCRATCH:
        return False
    if contexts.layout(base, plan.contexts) is not None:
        return True
    image = images.find(contexts.shown(base, plan.contexts))
    return image is None or bool(image.runtime_config.get("OnBuild"))


def _sources(instruction: Instruction) -> Iterator[str]:
    if instruction.name == "RUN":
        yield from context_sources(instruction)
    elif instruction.name in ("COPY", "ADD") and instruction.flag("from") is None:
        words = instruction.words or tuple(instruction.text.split())
        openings = {one.opening for one in instruction.heredocs}
        for word in words[:-1]:
            is_remote = instruction.name == "ADD" and (word.startswith(URLS) or git.is_git(word))
            if word not in openings and not is_remote:
                yield word


def _plain(path: str) -> str:
    """PATH as the client understands it. Raises _Everything."""
    if any(mark in path for mark in ("$", "\\", '"', "'", "**")):
        raise _Everything
    clean = posixpath.normpath("/" + path.lstrip("/")).lstrip("/")
    if not clean or path.startswith("..") or "/../" in path:
        raise _Everything
    return clean
