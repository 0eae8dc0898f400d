"""Files an administrator gives the API server, kept with the cluster so that each start finds them: who may come in, and what is noted.

`atoll cluster start --authentication-config FILE --audit-policy FILE` copies them here after they have been read as the server will; an
empty FILE takes one away again.
"""

from __future__ import annotations

import time
from pathlib import Path

from atoll.apiserver.audit.policy import Policy
from atoll.apiserver.auth.settings import AuthenticationSettings
from atoll.cluster.pki import write_private
from atoll.config import Instance
from atoll.errors import InvalidInput

AUTHENTICATION, AUDIT_POLICY = "authentication.yaml", "audit-policy.yaml"
AUDIT_LOG = "audit.log"  # among the instance's logs


def keep(instance: Instance, authentication: str | None, audit_policy: str | None) -> None:
    """Take over what is given. Raises InvalidInput for a file that the server would not take."""
    for given, name in ((authentication, AUTHENTICATION), (audit_policy, AUDIT_POLICY)):
        if given is None:
            continue
        kept = instance.cluster / name
        if not given:
            kept.unlink(missing_ok=True)
            continue
        source = Path(given)
        if name == AUTHENTICATION:
            AuthenticationSettings.load(source, time.time)
        else:
            Policy.load(source)
        try:
            write_private(kept, source.read_bytes())
        except OSError as error:
            raise InvalidInput(f"{given}: {error}") from None


def kept(instance: Instance, name: str) -> Path | None:
    path = instance.cluster / name
    return path if path.exists() else None
