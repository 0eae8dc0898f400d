"""Groups that a spec wants outside the instance's own: docker's `--cgroup-parent`, an absolute `cgroupsPath`.

Those below the instance's group are found by looking there. These are written down before they are made, so that the keeper after one
that was killed finds what belongs to no container and ends it. The list is written anew at each change: few containers ask for this.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

FILE = os.path.join("run", "groups")


class DistantGroups:
    def __init__(self, home: str, top: str) -> None:
        self._path = os.path.join(home, FILE)
        self._top = top

    def is_distant(self, path: str) -> bool:
        return not path.startswith(f"{self._top}/")

    def keep(self, paths: Iterable[str]) -> None:
        """Those among `paths` that are distant, and no other, are on the list. Raises OSError."""
        distant = sorted(filter(self.is_distant, paths))
        if not distant:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape", opener=_private) as file:
            file.writelines(f"{path}\n" for path in distant)
        os.replace(temporary, self._path)

    def listed(self) -> list[str]:
        try:
            with open(self._path, encoding="utf-8", errors="surrogateescape") as file:
                return [path for path in file.read().split("\n") if path]
        except FileNotFoundError:
            return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
