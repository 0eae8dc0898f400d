"""What instructions without files do to an image's configuration (OCI image-spec, config.md; the names are Docker's)."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from typing import Any

from atoll.build.syntax import Instruction
from atoll.build.words import Expander, split_words
from atoll.errors import InvalidInput
from atoll.units import parse_duration

Config = dict[str, Any]
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?$", re.IGNORECASE)
PORT_MAX = 65535
HEALTH_MIN_NS = 1_000_000
SIGNALS_MAX = 64


def environment(config: Config) -> dict[str, str]:
    return {name: value for name, _, value in (item.partition("=") for item in config.get("Env") or ())}


def shell(config: Config) -> list[str]:
    return list(config.get("Shell") or DEFAULT_SHELL)


def command(config: Config, instruction: Instruction) -> list[str]:
    """The exec form's words as they are, or the shell form behind the shell; here-documents go to the shell as they stand."""
    if instruction.words is not None:
        return list(instruction.words)
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


def apply(config: Config, instruction: Instruction, expander: Expander) -> tuple[Config, str]:
    """A copy of CONFIG after INSTRUCTION, and the instruction's words, expanded, as history has them.

    Raises InvalidInput; KeyError for an instruction that touches files.
    """
    changed = dict(config)
    return changed, CHANGES[instruction.name](changed, instruction, expander)


def _env(config: Config, instruction: Instruction, expander: Expander) -> str:
    known, given = environment(config), pairs(instruction.text, expander, "ENV")
    known.update(given)
    config["Env"] = [f"{name}={value}" for name, value in known.items()]
    return " ".join(f"{name}={value}" for name, value in given)


def _label(config: Config, instruction: Instruction, expander: Expander) -> str:
    given = pairs(instruction.text, expander, "LABEL")
    config["Labels"] = {**(config.get("Labels") or {}), **dict(given)}
    return " ".join(f"{name}={value}" for name, value in given)


def _cmd(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["Cmd"] = command(config, instruction)
    return instruction.text


def _entrypoint(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["Entrypoint"] = command(config, instruction)
    return instruction.text


def _expose(config: Config, instruction: Instruction, expander: Expander) -> str:
    ports = dict(config.get("ExposedPorts") or {})
    words = [part for text in expander.split(instruction.text) for part in text.split()]
    for word in words:
        ports.update({port: {} for port in ports_of(word)})
    config["ExposedPorts"] = ports
    return " ".join(words)


def ports_of(word: str) -> list[str]:
    """The ports of one word of EXPOSE, "80", "53/udp" or "8000-8002". Raises InvalidInput."""
    match = PORT.match(word)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if not match or not 0 < first <= last <= PORT_MAX:
        raise InvalidInput(f"invalid containerPort: {word}")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def _volume(config: Config, instruction: Instruction, expander: Expander) -> str:
    words = [expander.word(word) for word in instruction.words] if instruction.words is not None else expander.split(instruction.text)
    if not all(word.strip() for word in words):
        raise InvalidInput("VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{word: {} for word in words}}
    return f"[{' '.join(words)}]"


def _user(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["User"] = expander.word(instruction.text)
    return str(config["User"])


def _stopsignal(config: Config, instruction: Instruction, expander: Expander) -> str:
    name = expander.word(instruction.text)
    known = {one.name for one in signal.Signals} | {f"SIGRTMIN+{offset}" for offset in range(1, SIGNALS_MAX - signal.SIGRTMIN)}
    is_number = name.isdigit() and 0 < int(name) <= SIGNALS_MAX
    if not is_number and f"SIG{name.upper().removeprefix('SIG')}" not in known:
        raise InvalidInput(f"Invalid signal: {name}")
    config["StopSignal"] = name
    return name


def _shell(config: Config, instruction: Instruction, expander: Expander) -> str:
    config["Shell"] = list(instruction.words or ())
    return f"[{' '.join(config['Shell'])}]"


def _onbuild(config: Config, instruction: Instruction, expander: Expander) -> str:
    bodies = [f"\n{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs]
    config["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.text + "".join(bodies)]
    return instruction.text


def _healthcheck(config: Config, instruction: Instruction, expander: Expander) -> str:
    kind, *rest = instruction.text.split(None, 1)
    if kind.upper() == "NONE":
        if rest:
            raise InvalidInput("HEALTHCHECK NONE takes no arguments")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return instruction.text
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
            if nanoseconds < 0 or 0 < nanoseconds < HEALTH_MIN_NS:
                raise InvalidInput(f"Interval {json.dumps(flag)} cannot be less than 1ms")
            check[field] = nanoseconds
    retries = instruction.flag("retries")
    if retries is not None:
        if not retries.isdigit():
            raise InvalidInput(f"--retries must be a whole number, not {retries}")
        check["Retries"] = int(retries)
    config["Healthcheck"] = check
    return instruction.text


def _health_test(text: str) -> list[str]:
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return ["CMD", *words]
    return ["CMD-SHELL", text]


CHANGES: dict[str, Callable[[Config, Instruction, Expander], str]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
}
