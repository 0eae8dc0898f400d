"""Bootstrap tokens: `<id>.<secret>` of a secret in kube-system, by which a machine that has nothing else may ask to join (kubeadm)."""

from __future__ import annotations

import binascii
import datetime as dt
import hmac
import re
from base64 import b64decode
from collections.abc import Callable

from atoll.apiserver.call import AUTHENTICATED, User
from atoll.apiserver.core import Core
from atoll.errors import Unauthenticated

TYPE = "bootstrap.kubernetes.io/token"
BOOTSTRAPPERS = "system:bootstrappers"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    def __init__(self, core: Core, clock: Callable[[], float]) -> None:
        self._core = core
        self._clock = clock

    def knows(self, token: str) -> bool:
        """Whether this is the form of a bootstrap token."""
        return _TOKEN.fullmatch(token) is not None

    def authenticate(self, token: str) -> User:
        """Raises Unauthenticated."""
        match = _TOKEN.fullmatch(token)
        found = self._core.find("", "v1", "secrets", f"bootstrap-token-{match[1]}", "kube-system") if match else None
        if match is None or found is None or found.obj.get("type") != TYPE or found.obj["metadata"].get("deletionTimestamp"):
            raise Unauthenticated("the bootstrap token is not known")
        try:
            data = {key: b64decode(value).decode() for key, value in (found.obj.get("data") or {}).items()}
        except (binascii.Error, UnicodeDecodeError):
            raise Unauthenticated("the bootstrap token's secret cannot be read") from None
        if data.get("token-id") != match[1] or not hmac.compare_digest(data.get("token-secret", "").encode(), match[2].encode()):
            raise Unauthenticated("the bootstrap token is not known")
        if self._has_expired(data.get("expiration", "")):
            raise Unauthenticated("the bootstrap token has expired")
        if data.get("usage-bootstrap-authentication") != "true":
            raise Unauthenticated("the bootstrap token is not for authentication")
        extra = [group for group in data.get("auth-extra-groups", "").split(",") if group]
        if not all(_GROUP.fullmatch(group) for group in extra):
            raise Unauthenticated("the bootstrap token's groups are not all below system:bootstrappers")
        return User(f"system:bootstrap:{match[1]}", (BOOTSTRAPPERS, *sorted(set(extra) - {BOOTSTRAPPERS}), AUTHENTICATED))

    def _has_expired(self, when: str) -> bool:
        """A time that cannot be read has passed, as upstream."""
        if not when:
            return False
        try:
            return dt.datetime.fromisoformat(when).timestamp() <= self._clock()
        except ValueError:
            return True
