"""A registry: the server side of the OCI distribution protocol (distribution-spec 1.1).

    server      the handler and the process          routes/     endpoints, one module a chapter
    store       what is in a repository, and why     manifests   documents on their way in
    content     blobs as files by digest             uploads     sessions, hashed as they arrive
    database    SQLite: links, tags, referrers       collect     garbage collection and fsck
    htpasswd    basic authentication                 errors      the protocol's refusals

    await serve(Settings(root=Path("/srv/registry")), ready=print)

Pull, push (monolithic, chunked, streamed, mounted), tags, referrers, deletion, `_catalog`; sha256 and sha512. What was acknowledged is on
disk; content is what its digest says, or was refused.
"""

from __future__ import annotations

from atoll.registry.collect import Collected, check, collect
from atoll.registry.server import RegistryApp, Settings, serve
from atoll.registry.store import Store
from atoll.registry.uploads import Uploads

__all__ = ["Collected", "RegistryApp", "Settings", "Store", "Uploads", "check", "collect", "serve"]
