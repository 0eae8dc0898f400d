"""What the user of an instance may set: <home>/engine.toml, every key with its default here.

trust-host = true              # bring the host's own certificate authorities and pip index into containers and builds
default-ulimits = {nofile = [1048576, 1048576]}      # soft and hard; cut to what the kernel allows
runtimes = {nvidia = "/usr/bin/nvidia-container-runtime"}      # for `--runtime`, beside those found in PATH (runc, crun)
cdi-spec-dirs = ["/etc/cdi", "/var/run/cdi"]     # where vendors describe devices for `--gpus` and `--device`; the later wins
hosts = []                     # where to listen beside run/engine.sock: "unix:///path", "tcp://address:2376" (with certificates only)
tlscacert, tlscert, tlskey     # files of PEM for tcp: whose clients are let in, who the engine is
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from atoll.engine.listening import Listening
from atoll.errors import InvalidInput
from atoll.runtime.cdi import DIRECTORIES

TLS_KEYS = ("tlscacert", "tlscert", "tlskey")
KEYS = frozenset({"trust-host", "default-ulimits", "runtimes", "cdi-spec-dirs", "hosts", *TLS_KEYS})


@dataclass(frozen=True, slots=True)
class Settings:
    trust_host: bool = True
    default_ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    runtimes: Mapping[str, Path] = field(default_factory=dict)
    cdi_directories: tuple[str, ...] = DIRECTORIES
    listening: Listening = field(default_factory=Listening)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Raises InvalidInput naming the file and the key that is wrong."""
        if not path.exists():
            return cls()
        import tomllib

        try:
            raw = tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path}: {error}") from error
        unknown = sorted(set(raw) - KEYS)
        if unknown:
            raise InvalidInput(f"{path}: unknown key {unknown[0]!r}")
        trust = raw.get("trust-host", True)
        if not isinstance(trust, bool):
            raise InvalidInput(f"{path}: trust-host must be true or false")
        return cls(
            trust,
            _ulimits(path, raw.get("default-ulimits", {})),
            _runtimes(path, raw.get("runtimes", {})),
            _directories(path, raw.get("cdi-spec-dirs", list(DIRECTORIES))),
            _listening(path, raw),
        )


def _listening(path: Path, raw: Mapping[str, object]) -> Listening:
    hosts, files = raw.get("hosts", []), [raw.get(name) for name in TLS_KEYS]
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise InvalidInput(f"{path}: hosts must be a list of addresses")
    chosen = [file if isinstance(file, str) else None for file in files]
    if chosen != files:
        raise InvalidInput(f"{path}: {', '.join(TLS_KEYS)} must be paths of files")
    try:
        return Listening.of(hosts, *chosen)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _runtimes(path: Path, raw: object) -> dict[str, Path]:
    if not isinstance(raw, dict) or not all(isinstance(program, str) and program.startswith("/") for program in raw.values()):
        raise InvalidInput(f"{path}: runtimes must be a table of absolute paths")
    if "atoll" in raw:
        raise InvalidInput(f"{path}: runtimes.atoll is our own: choose another name")
    return {name: Path(program) for name, program in raw.items()}


def _directories(path: Path, raw: object) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(directory, str) and directory.startswith("/") for directory in raw):
        raise InvalidInput(f"{path}: cdi-spec-dirs must be a list of absolute paths")
    return tuple(raw)


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
