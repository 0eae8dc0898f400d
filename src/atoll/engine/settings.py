"""What the user of an instance may set: <home>/engine.toml, every key with its default here.

trust-host = true              # bring the host's own certificate authorities and pip index into containers and builds
default-ulimits = {nofile = [1048576, 1048576]}      # soft and hard; cut to what the kernel allows
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atoll.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Settings:
    trust_host: bool = True
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Raises InvalidInput naming the file and the key that is wrong."""
        try:
            raw = tomllib.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path}: {error}") from error
        unknown = sorted(set(raw) - {"trust-host", "default-ulimits"})
        if unknown:
            raise InvalidInput(f"{path}: unknown key {unknown[0]!r}")
        trust = raw.get("trust-host", True)
        if not isinstance(trust, bool):
            raise InvalidInput(f"{path}: trust-host must be true or false")
        return cls(trust, _ulimits(path, raw.get("default-ulimits", {})))


def _ulimits(path: Path, raw: object) -> dict[str, tuple[int, int]]:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{path}: default-ulimits must be a table of [soft, hard] pairs")
    found = {}
    for name, pair in raw.items():
        match pair:
            case [int(soft), int(hard)]:
                found[str(name)] = (soft, hard)
            case _:
                raise InvalidInput(f"{path}: default-ulimits.{name} must be a pair [soft, hard]")
    return found
