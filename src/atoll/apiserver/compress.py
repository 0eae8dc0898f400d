"""Large answers in gzip, for clients that accept it: lists and objects, tables, discovery and OpenAPI alike (APIResponseCompression)."""

from __future__ import annotations

import asyncio

from atoll.http import Request, Response

COMPRESS_MIN = 128 * 1024  # bytes; upstream's threshold
LEVEL = 1  # as upstream: its users are on the same network


async def compress(request: Request, response: Response) -> Response:
    """The response, whose body is of COMPRESS_MIN bytes or more, as the client takes it."""
    body = response.body
    if not isinstance(body, bytes) or not _accepts_gzip(request):
        return response
    from isal import igzip

    packed = await asyncio.to_thread(igzip.compress, body, LEVEL)
    return Response(response.status, (*response.headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")), packed)


def _accepts_gzip(request: Request) -> bool:
    for coding in request.headers.tokens("accept-encoding"):
        name, _, weight = coding.replace(" ", "").lower().partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False
