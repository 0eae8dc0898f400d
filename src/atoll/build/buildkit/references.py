"""Results that a client carries from one build to another (bake's `target:` contexts, compose's `additional_contexts: service:`).

It carries them as graphs of LLB, which it takes for a state of its own and hands back as an input. Ours have one source, that names the
image; the last operation only points at it, as in every definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.contexts import IMAGE
from atoll.errors import NotSupported
from atoll.images import Image

SCHEME = "atoll-image://"
INPUT = "input:"


def definition(image: Image) -> Any:
    """A Definition that stands for IMAGE."""
    source = messages.Op(source=messages.SourceOp(identifier=SCHEME + image.id)).SerializeToString()
    digest = f"sha256:{hashlib.sha256(source).hexdigest()}"
    end = messages.Op(inputs=[messages.Input(digest=digest)]).SerializeToString()
    # Without metadata clients take a definition for none.
    return messages.Definition(**{"def": [source, end], "metadata": {digest: messages.OpMetadata()}})


def with_inputs(attributes: Mapping[str, str], inputs: Mapping[str, Any]) -> dict[str, str]:
    """ATTRIBUTES, those that name an input replaced by the image it stands for. Raises NotSupported for a graph that is none of ours."""
    found = dict(attributes)
    for name, value in attributes.items():
        if name.startswith("context:") and value.startswith(INPUT) and value.removeprefix(INPUT) in inputs:
            found[name] = IMAGE + _image_of(value.removeprefix(INPUT), inputs[value.removeprefix(INPUT)])
    return found


def _image_of(name: str, given: Any) -> str:
    for data in getattr(given, "def"):
        identifier: str = messages.Op.FromString(data).source.identifier
        if identifier.startswith(SCHEME):
            return identifier.removeprefix(SCHEME)
    raise NotSupported(f"the input {name} is a graph of LLB: the builder reads Dockerfiles, and results of its own")
