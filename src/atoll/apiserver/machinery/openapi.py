"""OpenAPI as kubectl reads it: v3, an index of hashes and one document for each group version; v2, one document of all.

kubectl fetches them for `explain` and for server-side field validation: every kind needs a patch operation with the query parameters
`fieldValidation` and `dryRun`. Documents are built when first asked for, encoded once and kept as bytes; the hash in the index makes a
document's URL immutable, so clients keep it.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.machinery.kind import Kind, KindRegistry
from atoll.apiserver.machinery.openapi_paths import paths_of
from atoll.apiserver.machinery.openapi_protobuf import encode_swagger
from atoll.apiserver.machinery.openapi_schemas import SchemaDocument
from atoll.apiserver.machinery.openapi_v2 import swagger
from atoll.apiserver.machinery.schema_file import schema_file


class Document(NamedTuple):
    body: bytes
    etag: str  # without the quotes; the `hash` query parameter of the index


class OpenApi:
    """`index` is cheap: a hash is made of what a document is built from (the compiled schemas and the kinds), not of the document."""

    def __init__(self, registry: KindRegistry) -> None:
        self._registry = registry
        self._documents: dict[str, Document] = {}
        self._index: Document | None = None
        self._swagger: dict[bool, Document] = {}
        self._foreign: dict[str, str] = {}

    def index(self) -> Document:
        """GET /openapi/v3: {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1?hash=..."}}}."""
        if self._index is None:
            paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={_hash(kinds)}"} for path, kinds in self._by_path().items()}
            paths.update({path: {"serverRelativeURL": url} for path, url in self._foreign.items()})
            body = orjson.dumps({"paths": dict(sorted(paths.items()))})
            self._index = Document(body, _digest(body))
        return self._index

    def document(self, path: str) -> Document | None:
        """GET /openapi/v3/<path>, path being "api/v1" or "apis/apps/v1"; None when no such group version is served."""
        if path not in self._documents:
            kinds = self._by_path().get(path)
            if not kinds:
                return None
            self._documents[path] = Document(_encode(path, kinds), _hash(kinds))
        return self._documents[path]

    def swagger(self, *, protobuf: bool) -> Document:
        """GET /openapi/v2: everything in one document of the older form."""
        if protobuf not in self._swagger:
            document = swagger(self._registry, f"v{schema_file().version}")
            body = encode_swagger(document) if protobuf else orjson.dumps(document)
            self._swagger[protobuf] = Document(body, _digest(body))
        return self._swagger[protobuf]

    def forget(self, group: str, version: str) -> None:
        """The kinds of this group version have changed."""
        self._index = None
        self._swagger.clear()
        self._documents.pop(_path(group, version), None)

    def set_foreign(self, urls: dict[str, str]) -> None:
        """The documents that other servers have, by path, with their URLs, hashes included."""
        if urls != self._foreign:
            self._foreign, self._index = urls, None

    def _by_path(self) -> dict[str, list[Kind]]:
        by_path: dict[str, list[Kind]] = {}
        for kind in self._registry:
            by_path.setdefault(_path(kind.group, kind.version), []).append(kind)
        return by_path


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _hash(kinds: list[Kind]) -> str:
    facts = [
        (kind.plural, kind.kind, kind.namespaced, kind.verbs, [sub.name for sub in kind.subresources], kind.list_kind, kind.digest)
        for kind in kinds
    ]
    return _digest(orjson.dumps([schema_file().version, facts]))


def _digest(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def _encode(path: str, kinds: list[Kind]) -> bytes:
    schemas = SchemaDocument()
    document: dict[str, Any] = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{schema_file().version}"},
        "paths": {},
    }
    for kind in kinds:
        schemas.add(kind.schema.publish(schemas.reference))
    for kind in kinds:
        document["paths"].update(paths_of(path, kind, schemas))
    document["components"] = {"schemas": schemas.components()}
    return orjson.dumps(document)
