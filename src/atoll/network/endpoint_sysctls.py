"""The endpoint option com.docker.network.endpoint.sysctls: kernel settings of a container's one interface.

"net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0" sets them on whatever name the interface gets on that network.
IFNAME may come in small letters: docker 28's command line turns the option into them. Nothing but settings of an interface passes: with
anything else a user of the API could reach past the container's own network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from atoll.errors import InvalidInput
from atoll.kernel import netns

OPTION = "com.docker.network.endpoint.sysctls"
_SETTING = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?i:IFNAME)\.([a-z0-9_]+)=([A-Za-z0-9_. -]*)", re.ASCII)
_SYSCTL = Path("/proc/sys/net")

Setting = tuple[str, str, str, str]  # family, kind, name, value


def parse(options: Mapping[str, str]) -> list[Setting]:
    """Raises InvalidInput naming the setting that is none of an interface's."""
    settings: list[Setting] = []
    for text in filter(None, options.get(OPTION, "").split(",")):
        match = _SETTING.fullmatch(text.strip())
        if not match:
            raise InvalidInput(
                f"invalid endpoint settings: {OPTION}: '{text}' is not net.<ipv4|ipv6|mpls>.<conf|neigh>.IFNAME.<name>=<value>"
            )
        settings.append((match[1], match[2], match[3], match[4]))
    return settings


def apply(settings: list[Setting], namespace: Path, ifname: str) -> None:
    """Raises InvalidInput for a setting that this kernel does not have or does not take."""
    if settings:
        netns.call(namespace, lambda: _write(settings, ifname))


def _write(settings: list[Setting], ifname: str) -> None:
    """Runs inside the namespace, whose settings /proc/sys/net shows to whoever is in it."""
    for family, kind, name, value in settings:
        try:
            (_SYSCTL / family / kind / ifname / name).write_text(value, encoding="ascii")
        except OSError as error:
            raise InvalidInput(f"cannot set net.{family}.{kind}.{ifname}.{name} to '{value}': {error.strerror}") from error
