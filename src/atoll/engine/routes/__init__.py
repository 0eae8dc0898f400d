"""The Engine API's routes, one module a tag of the API specification. Thin: read the request, call the engine, shape the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atoll.engine.routes import (
    archive,
    attach,
    build,
    containers,
    distribution,
    events,
    execs,
    images,
    networks,
    own,
    system,
    transfer,
    unsupported,
    volumes,
)
from atoll.http import Router

if TYPE_CHECKING:
    from atoll.engine.engine import Engine


def add_routes(router: Router, engine: Engine) -> None:
    for module in (
        system,
        events,
        containers,
        attach,
        archive,
        execs,
        images,
        transfer,
        build,
        distribution,
        networks,
        volumes,
        own,
        unsupported,
    ):
        module.add_routes(router, engine)
