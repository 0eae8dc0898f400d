"""Dockerfile instructions that change only a configuration, as `docker commit --change` and `docker import --change` take them."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from atoll.errors import InvalidInput

Config = dict[str, Any]


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> Config:
    """A copy of `config` after the instructions. Raises InvalidInput naming the one that is wrong."""
    changed = copy.deepcopy(dict(config))
    for line in changes:
        word, _, rest = line.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidInput(f"{word.upper()} is not a valid change command")
        if not rest.strip():
            raise InvalidInput(f"{word.upper()} requires at least one argument")
        instruction(changed, rest.strip())
    return changed


def _words(text: str) -> list[str]:
    """The exec form's words, or the shell form as a command for the shell."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> list[tuple[str, str]]:
    """KEY=value words with quotes, or the old form KEY rest-of-line."""
    if not re.match(r"[^\s=]+=", text):
        key, _, value = text.partition(" ")
        if not value:
            raise InvalidInput(f"{text} must have two arguments")
        return [(key, value.strip())]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"{text}: {error}") from error
    pairs = [word.partition("=") for word in words]
    if not all(equals for _, equals, _ in pairs):
        raise InvalidInput(f"Syntax error - can't find = in {text}. Must be of the form: name=value")
    return [(key, value) for key, _, value in pairs]


def _set(name: str, read: Callable[[str], Any]) -> Callable[[Config, str], None]:
    def change(config: Config, text: str) -> None:
        config[name] = read(text)

    return change


def _env(config: Config, text: str) -> None:
    known = {item.partition("=")[0]: item for item in config.get("Env") or ()}
    known.update({key: f"{key}={value}" for key, value in _pairs(text)})
    config["Env"] = list(known.values())


def _label(config: Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _expose(config: Config, text: str) -> None:
    ports: dict[str, Any] = {port if "/" in port else f"{port}/tcp": {} for port in text.split()}
    config["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}


def _volume(config: Config, text: str) -> None:
    paths = _words(text) if text.startswith("[") else text.split()
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _onbuild(config: Config, text: str) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


_INSTRUCTIONS: dict[str, Callable[[Config, str], None]] = {
    "CMD": _set("Cmd", _words),
    "ENTRYPOINT": _set("Entrypoint", _words),
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _set("StopSignal", str),
    "USER": _set("User", str),
    "VOLUME": _volume,
    "WORKDIR": _set("WorkingDir", str),
}
