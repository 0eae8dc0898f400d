"""The endpoints of distribution-spec 1.1, one module a chapter; `table` puts them into a router."""

from __future__ import annotations

from atoll.http import Router
from atoll.registry.routes.blobs import BlobRoutes
from atoll.registry.routes.discovery import DiscoveryRoutes
from atoll.registry.routes.manifests import ManifestRoutes
from atoll.registry.routes.uploads import UploadRoutes
from atoll.registry.store import Store
from atoll.registry.uploads import Uploads


def table(store: Store, uploads: Uploads) -> Router:
    router = Router()
    for routes in (DiscoveryRoutes(store), BlobRoutes(store), ManifestRoutes(store), UploadRoutes(store, uploads)):
        routes.add_to(router)
    return router
