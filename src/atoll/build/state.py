"""What a stage has come to after a step: an immutable value, from which the next step or the final image is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from atoll.build.cache import key_of
from atoll.build.cacheconfig import INLINE
from atoll.build.config import DEFAULT_PATH, Config, environment
from atoll.images import Image, Layer
from atoll.images.catalog import new_config

SCRATCH = "scratch"
SHORT = 12


@dataclass(frozen=True, slots=True)
class State:
    """`key` stands for all of it. `image` is set while the state is an image that was not built on; `is_fresh` asks for steps anew.

    `asked` are the names that ARGs have declared, in order, whether or not they have a value in `arguments`. `inline_cache` is a field of
    the configuration, for the next builder (cacheconfig).
    """

    key: str
    config: Config
    layers: tuple[Layer, ...] = ()
    history: tuple[dict[str, Any], ...] = ()
    created: str = ""
    author: str = ""
    image: Image | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    asked: tuple[str, ...] = ()
    has_own_cmd: bool = False
    is_fresh: bool = False
    inline_cache: str = ""

    @property
    def chain(self) -> str | None:
        return self.layers[-1].chain_id if self.layers else None

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.config)

    @property
    def declared(self) -> dict[str, str]:
        """The ARGs a RUN sees: those that no ENV hides."""
        known = self.environment
        return {name: value for name, value in sorted(self.arguments.items()) if name not in known}

    @property
    def variables(self) -> dict[str, str]:
        return {**self.arguments, **self.environment}

    @property
    def document(self) -> dict[str, Any]:
        """The image configuration this would be, less what the store adds."""
        extra = {name: value for name, value in (("author", self.author), (INLINE, self.inline_cache)) if value}
        return {**extra, "created": self.created, "config": self.config, "history": list(self.history)}

    @property
    def image_id(self) -> str:
        """The id of the image this would be, were the build to end here."""
        if self.image is not None:
            return self.image.id
        document = new_config(self.document, [layer.diff_id for layer in self.layers])
        return f"sha256:{hashlib.sha256(document).hexdigest()}"

    def after(
        self, key: str, created: str, told: Mapping[str, str] | None, layer: Layer | None = None, config: Config | None = None
    ) -> State:
        """The state a step leads to; TOLD is what the image's history says of it beside its time, None for nothing."""
        step: dict[str, Any] = {"created": created, **(told or {})}
        if layer is None:
            step["empty_layer"] = True
        return replace(
            self,
            key=key,
            config=self.config if config is None else config,
            layers=self.layers if layer is None else (*self.layers, layer),
            history=self.history if told is None else (*self.history, step),
            created=created,
            image=None,
        )


def of_image(image: Image) -> State:
    """Where a stage on IMAGE begins. Without a PATH of its own it gets the usual one, as every image Docker builds does."""
    config = {name: value for name, value in image.runtime_config.items() if value not in (None, "", [], {})}
    history = tuple(image.config.get("history") or ())
    return State(
        key_of(image.id),
        _with_path(config),
        image.layers,
        history,
        str(image.config.get("created") or ""),
        str(image.config.get("author") or ""),
        image,
    )


def of_nothing(config: Config) -> State:
    return State(key_of(SCRATCH), _with_path(config))


def _with_path(config: Config) -> Config:
    if "PATH" in environment(config):
        return config
    return {**config, "Env": [*(config.get("Env") or ()), DEFAULT_PATH]}
