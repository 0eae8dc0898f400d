"""Control groups, v1, hybrid and v2, behind one class.

`Layout.discover()` finds what this machine has; `Cgroup(layout, path)` is one group in every hierarchy at once. Each controller is used
where it lives: in its v1 hierarchy, or in the unified one. Resources are OCI `linux.resources`.
"""

from __future__ import annotations

from atoll.kernel.cgroups.group import Cgroup
from atoll.kernel.cgroups.layout import Layout

__all__ = ["Cgroup", "Layout"]
