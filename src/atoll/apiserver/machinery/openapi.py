"""OpenAPI v3 as kubectl reads it: an index of hashes and one document for each group version.

kubectl fetches them for `explain` and for server-side field validation: every kind needs a patch operation with the query parameters
`fieldValidation` and `dryRun`. Documents are built when first asked for, encoded once and kept as bytes; the hash in the index makes a
document's URL immutable, so clients keep it.
"""

from __future__ import annotations

from typing import NamedTuple

from atoll.apiserver.machinery.kind import KindRegistry


class Document(NamedTuple):
    body: bytes
    etag: str  # without the quotes; the `hash` query parameter of the index


class OpenApi:
    def __init__(self, registry: KindRegistry) -> None:
        self._registry = registry

    def index(self) -> Document:
        """GET /openapi/v3: {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=..."}}}."""
        raise NotImplementedError

    def document(self, path: str) -> Document | None:
        """GET /openapi/v3/<path>, path being "api/v1" or "apis/apps/v1"; None when no such group version is served."""
        raise NotImplementedError

    def forget(self, group: str, version: str) -> None:
        """The kinds of this group version have changed."""
        raise NotImplementedError
