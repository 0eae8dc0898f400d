"""AuthenticationConfiguration (apiserver.config.k8s.io): issuers of JWTs, and for which paths nobody may be anonymous.

The file is read again when it has changed, as the real server does; one that cannot be read then leaves what was there. Files of static
tokens and audit policies are read at the start alone, there as here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.apiserver.auth.oidc import Issuer
from atoll.errors import InvalidInput

log = logging.getLogger(__name__)

LOOK_S = 10.0  # between two looks at the file; upstream takes up to a minute
_VERSIONS = tuple(f"apiserver.config.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))


@dataclass(frozen=True, slots=True)
class AuthenticationSettings:
    """`anonymous` is None where anybody may be anonymous, else the paths on which that is so; none of them turns it off."""

    issuers: tuple[Issuer, ...] = ()
    anonymous: tuple[str, ...] | None = None

    @classmethod
    def load(cls, path: Path, clock: Callable[[], float]) -> AuthenticationSettings:
        """Raises InvalidInput naming the file and what is wrong in it."""
        import yaml

        try:
            content: Any = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise InvalidInput(f"{path}: {error}") from None
        if (
            not isinstance(content, dict)
            or content.get("kind") != "AuthenticationConfiguration"
            or content.get("apiVersion") not in _VERSIONS
        ):
            raise InvalidInput(f"{path}: expected an AuthenticationConfiguration of {_VERSIONS[0]}")
        try:
            issuers = tuple(Issuer(each, clock) for each in content.get("jwt") or ())
        except (InvalidInput, AttributeError, TypeError) as error:
            raise InvalidInput(f"{path}: {error}") from None
        if len({issuer.url for issuer in issuers}) < len(issuers):
            raise InvalidInput(f"{path}: each issuer's URL must be there once")
        anonymous = content.get("anonymous")
        if anonymous is None:
            return cls(issuers)
        if not anonymous.get("enabled"):
            return cls(issuers, ())
        conditions = anonymous.get("conditions")
        return cls(issuers, tuple(str(each.get("path")) for each in conditions) if conditions else None)


async def follow(
    path: Path, seen: object, clock: Callable[[], float], use: Callable[[AuthenticationSettings], None], every: float = LOOK_S
) -> None:
    """Hand over what the file says whenever it is another than was `seen`. Runs until cancelled."""
    while True:
        await asyncio.sleep(every)
        found = state(path)
        if found == seen:
            continue
        seen = found
        try:
            use(AuthenticationSettings.load(path, clock))
        except InvalidInput as error:
            log.warning("the authentication configuration stays as it was: %s", error)
        else:
            log.info("%s has been read again", path)


def state(path: Path) -> object:
    """What tells one version of a file from another; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
