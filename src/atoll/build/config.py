"""What instructions without files do to an image's configuration (OCI image-spec, config.md; the names are Docker's)."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

from atoll.build.syntax import Instruction
from atoll.build.words import Expander, split_words
from atoll.errors import InvalidInput, NotSupported
from atoll.units import parse_duration

Config = dict[str, Any]
DEFAULT_SHELL = ("/bin/sh", "-c")
PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?$", re.IGNORECASE)
PORT_MAX = 65535
ALONE = re.compile(r"<<-?\s*(?:\"[^\"]+\"|'[^']+'|\w[\w.]*)$")


def environment(config: Config) -> dict[str, str]:
    return {name: value for name, _, value in (item.partition("=") for item in config.get("Env") or ())}


def shell(config: Config) -> list[str]:
    return list(config.get("Shell") or DEFAULT_SHELL)


def command(config: Config, instruction: Instruction) -> list[str]:
    """The exec form's words as they are, or the shell form behind the shell.

    A here-document that stands alone is the script itself; beside other words it goes to the shell as it stands. Raises NotSupported.
    """
    if instruction.words is not None:
        return list(instruction.words)
    if len(instruction.heredocs) == 1 and ALONE.match(instruction.text):
        script = instruction.heredocs[0].content
        if script.startswith("#!"):
            raise NotSupported(f"a here-document with an interpreter of its own (#!) is not supported yet: line {instruction.line}")
        return [*shell(config), script]
    text = instruction.text
    for heredoc in instruction.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return [*shell(config), text]


def pairs(text: str, expander: Expander, name: str) -> list[tuple[str, str]]:
    """`key=value` words, or the old form `key rest of the line`. Raises InvalidInput."""
    words = split_words(text, expander.escape)
    if "=" not in words[0]:
        key, *rest = text.split(None, 1)
        if not rest:
            raise InvalidInput(f"{name} must have two arguments")
        return [(expander.word(key), expander.word(rest[0]))]
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not key:
            raise InvalidInput(f"{name} names can not be blank")
        found.append((expander.word(key), expander.word(value)))
    return found


def apply(config: Config, instruction: Instruction, expander: Expander) -> Config:
    """A copy of CONFIG after INSTRUCTION. Raises InvalidInput; KeyError for an instruction that touches files."""
    changed = copy.deepcopy(config)
    CHANGES[instruction.name](changed, instruction, expander)
    return changed


def _env(config: Config, instruction: Instruction, expander: Expander) -> None:
    known = environment(config)
    known.update(pairs(instruction.text, expander, "ENV"))
    config["Env"] = [f"{name}={value}" for name, value in known.items()]


def _label(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(pairs(instruction.text, expander, "LABEL"))}


def _maintainer(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), "maintainer": instruction.text}


def _cmd(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["Cmd"] = command(config, instruction)


def _entrypoint(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["Entrypoint"] = command(config, instruction)


def _expose(config: Config, instruction: Instruction, expander: Expander) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in (part for text in expander.split(instruction.text) for part in text.split()):
        match = PORT.match(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not match or not 0 < first <= last <= PORT_MAX:
            raise InvalidInput(f"invalid containerPort: {word}")
        ports.update({f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)})
    config["ExposedPorts"] = ports


def _volume(config: Config, instruction: Instruction, expander: Expander) -> None:
    words = [expander.word(word) for word in instruction.words] if instruction.words is not None else expander.split(instruction.text)
    if not all(word.strip() for word in words):
        raise InvalidInput("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{word: {} for word in words}}


def _user(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["User"] = expander.word(instruction.text)


def _stopsignal(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["StopSignal"] = expander.word(instruction.text)


def _shell(config: Config, instruction: Instruction, expander: Expander) -> None:
    config["Shell"] = list(instruction.words or ())


def _onbuild(config: Config, instruction: Instruction, expander: Expander) -> None:
    trigger = instruction.text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidInput("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise InvalidInput(f"{trigger} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.text]


def _healthcheck(config: Config, instruction: Instruction, expander: Expander) -> None:
    kind, *rest = instruction.text.split(None, 1)
    if kind.upper() == "NONE":
        if rest:
            raise InvalidInput("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind.upper() != "CMD":
        raise InvalidInput(f"unknown type {json.dumps(kind)} in HEALTHCHECK (try CMD)")
    if not rest:
        raise InvalidInput("missing command after HEALTHCHECK CMD")
    check: Config = {"Test": _health_test(rest[0])}
    for flag, field in (
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start-period", "StartPeriod"),
        ("start-interval", "StartInterval"),
    ):
        value = instruction.flag(flag)
        if value is not None:
            nanoseconds = parse_duration(expander.word(value))
            if nanoseconds < 0:
                raise InvalidInput(f"interval {json.dumps(flag)} cannot be less than 1ms")
            check[field] = nanoseconds
    retries = instruction.flag("retries")
    if retries is not None:
        if not retries.isdigit():
            raise InvalidInput(f"--retries must be a whole number, not {retries}")
        check["Retries"] = int(retries)
    config["Healthcheck"] = check


def _health_test(text: str) -> list[str]:
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return ["CMD", *words]
    return ["CMD-SHELL", text]


CHANGES: dict[str, Callable[[Config, Instruction, Expander], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
