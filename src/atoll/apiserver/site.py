"""What the server says of itself: health, version, discovery, OpenAPI, the keys its tokens are signed with."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable

import orjson

from atoll.apiserver.auth.serviceaccounts import ServiceAccountTokens
from atoll.apiserver.config import VERSION
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.discovery import AGGREGATED_SHAPES, Discovery, Document
from atoll.apiserver.machinery.negotiate import negotiate
from atoll.apiserver.machinery.openapi import OpenApi
from atoll.apiserver.machinery.openapi_v2 import PROTOBUF_ASKED, PROTOBUF_TYPE
from atoll.apiserver.metrics import TYPE as METRICS_TYPE
from atoll.apiserver.metrics import Metrics
from atoll.http import Request, Response, json_response, text_response

OPENAPI_TYPE = "application/json"
_YEAR_S = 31_536_000
Check = Callable[[], str]  # "" when all is well, else what is wrong


class Site:
    """`checks` are the parts of /readyz by name."""

    def __init__(
        self, discovery: Discovery, openapi: OpenApi, tokens: ServiceAccountTokens | None, checks: dict[str, Check], metrics: Metrics
    ) -> None:
        self._discovery = discovery
        self._openapi = openapi
        self._tokens = tokens
        self._checks = checks
        self._metrics = metrics

    def serve(self, request: Request) -> Response:
        """Raises StatusError 404, 405, 406."""
        if request.method not in ("GET", "HEAD"):
            raise statuses.method_not_allowed()
        segments = tuple(part for part in request.segments if part)
        match segments:
            case ("api" | "apis", *_):
                return self._discover(request, segments)
            case ("version",):
                return json_response(version_info())
            case ("healthz" | "livez" | "readyz", *check):
                return self._health(request, segments[0], "/".join(check))
            case ("metrics",):
                return Response(200, (("Content-Type", METRICS_TYPE),), self._metrics.render().encode())
            case ("openapi", "v2"):
                return self._open_api_v2(request)
            case ("openapi", "v3", *document):
                return self._open_api(request, "/".join(document))
            case (".well-known", "openid-configuration") if self._tokens is not None:
                return json_response(self._openid(self._tokens))
            case ("openid", "v1", "jwks") if self._tokens is not None:
                body = orjson.dumps(self._tokens.signer.jwks())
                return Response(200, (("Content-Type", "application/jwk-set+json"), ("Cache-Control", "public, max-age=3600")), body)
            case ():
                return json_response(
                    {"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}
                )
        raise statuses.no_such_path()

    def _discover(self, request: Request, segments: tuple[str, ...]) -> Response:
        form = negotiate(request.headers.get("accept"), AGGREGATED_SHAPES if len(segments) == 1 else frozenset())
        document = self._discovery.document(segments, form.version if form.shape else "")
        if document is None:
            raise statuses.no_such_path()
        return _cacheable(request, document, (("Vary", "Accept"), ("Cache-Control", "no-cache, private")))

    def _open_api(self, request: Request, path: str) -> Response:
        document = self._openapi.document(path) if path else self._openapi.index()
        if document is None:
            raise statuses.no_such_path()
        # The hash in the URL is the document's: it can be kept for ever. Any other hash is redirected to the right one, as upstream does.
        asked = request.query.get("hash")
        if path and asked and asked != document.etag:
            return Response(301, (("Location", f"/openapi/v3/{path}?hash={document.etag}"),))
        lasting = f"public, immutable, max-age={_YEAR_S}" if asked else "no-cache, private"
        return _cacheable(request, Document(document.body, document.etag, OPENAPI_TYPE), (("Vary", "Accept"), ("Cache-Control", lasting)))

    def _open_api_v2(self, request: Request) -> Response:
        protobuf = PROTOBUF_ASKED in (request.headers.get("accept") or "")
        document = self._openapi.swagger(protobuf=protobuf)
        served = Document(document.body, document.etag, PROTOBUF_TYPE if protobuf else OPENAPI_TYPE)
        return _cacheable(request, served, (("Vary", "Accept"), ("Cache-Control", "no-cache, private")))

    def _health(self, request: Request, kind: str, only: str) -> Response:
        excluded = set(request.query.getall("exclude"))
        checks = {"ping": lambda: "", **self._checks} if kind == "readyz" else {"ping": lambda: ""}
        if only:
            if only not in checks:
                raise statuses.no_such_path()
            checks = {only: checks[only]}
        results = {name: check() for name, check in checks.items() if name not in excluded}
        failed = [name for name, problem in results.items() if problem]
        if not failed and "verbose" not in request.query:
            return text_response("ok")
        lines = [f"[-]{name} failed: {problem}" if problem else f"[+]{name} ok" for name, problem in results.items()]
        lines.append(f"{kind} check {'failed' if failed else 'passed'}")
        return text_response("\n".join(lines) + "\n", 500 if failed else 200)

    def _openid(self, tokens: ServiceAccountTokens) -> dict[str, object]:
        return {
            "issuer": tokens.issuer,
            "jwks_uri": f"{tokens.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [tokens.signer.algorithm],
        }


def version_info() -> dict[str, str]:
    """/version. The compiler field names what runs this server: there is no Go in it."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": f"{sys.implementation.name} {platform.python_version()}",
        "platform": f"linux/{machine}",
    }


def _cacheable(request: Request, document: Document, headers: tuple[tuple[str, str], ...]) -> Response:
    etag = f'"{document.etag}"'
    if request.headers.get("if-none-match") == etag:
        return Response(304, (("ETag", etag), *headers))
    return Response(200, (("Content-Type", document.content_type), ("ETag", etag), *headers), document.body)
