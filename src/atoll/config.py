"""Where an instance of Atoll lives: one directory, one short id.

Everything an instance owns lies below its home. What the kernel keeps outside it (bridges, namespaces, cgroups, nftables tables) carries
`Instance.id`, so that instances live side by side and each can take away all of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import InvalidInput
from atoll.home import ENGINE_SOCKET, home_directory

SOCKET_PATH_MAX = 107  # bytes of sun_path less its NUL, unix(7)
LONGEST_SOCKET = "run/keeper.sock"


@dataclass(frozen=True, slots=True)
class Instance:
    """One Atoll: its home directory and what follows from it."""

    home: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Instance:
        """The instance named by ATOLL_HOME; by default /var/lib/atoll for root, ~/.local/share/atoll for others.

        Raises InvalidInput where the path is too long to hold a unix socket.
        """
        home = Path(home_directory(os.environ if environ is None else environ))
        if len(os.fsencode(home / LONGEST_SOCKET)) > SOCKET_PATH_MAX:
            raise InvalidInput(
                f"ATOLL_HOME {home} is too long: a unix socket's path ends at {SOCKET_PATH_MAX} bytes. Choose a shorter directory."
            )
        return cls(home)

    @property
    def id(self) -> str:
        """Eight hex digits that mark all of this instance outside its home; derived from the path, so it needs no file."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.home))).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """Sockets, namespaces and pid files: what a reboot may lose. Mode 0700."""
        return self.home / "run"

    @property
    def engine_socket(self) -> Path:
        return self.home / ENGINE_SOCKET

    @property
    def keeper_socket(self) -> Path:
        return self.run / "keeper.sock"

    @property
    def database(self) -> Path:
        """The engine's metadata, SQLite."""
        return self.home / "engine.db"

    @property
    def content(self) -> Path:
        """Blobs by digest: content/blobs/sha256/<hex>; unpacked layers: content/layers/<chain id>."""
        return self.home / "content"

    @property
    def containers(self) -> Path:
        """containers/<id>/: bundle, upper and work directories, log, hosts, resolv.conf, exit file."""
        return self.home / "containers"

    @property
    def volumes(self) -> Path:
        """volumes/<name>/_data: named volumes."""
        return self.home / "volumes"

    @property
    def network(self) -> Path:
        """Networks, and which container has which address."""
        return self.home / "network"

    @property
    def cache(self) -> Path:
        """What can be made again: compiled seccomp filters, indexes."""
        return self.home / "cache"

    @property
    def logs(self) -> Path:
        """Logs of Atoll's own processes."""
        return self.home / "logs"

    @property
    def cluster(self) -> Path:
        """The cluster: store, certificates, kubeconfig, pod directories."""
        return self.home / "cluster"

    @property
    def kubeconfig(self) -> Path:
        return self.cluster / "kubeconfig"
