"""One control plane for the directory, and for each test a namespace of its own."""

from __future__ import annotations

from itertools import count

import pytest
from conformance_api import Api, Refused, until
from conformance_definitions import Definitions
from conformance_plane import Plane

from atoll.client.resources import NAMESPACES, SERVICE_ACCOUNTS
from own_address import own_address

NUMBERS = count(1)


@pytest.fixture(scope="session")
def plane(session_instance):
    with own_address() as address:
        plane = Plane(session_instance, address)
        yield plane
        plane.close()
    log = plane.log()
    assert "Traceback" not in log, log


@pytest.fixture(scope="session")
def api(plane):
    api = Api(plane.instance.kubeconfig)
    yield api
    api.close()


@pytest.fixture
def namespaces(api):
    """Makes namespaces, and lets them go after the test."""
    made = []

    def make(**labels):
        name = f"conformance-{next(NUMBERS)}"
        api.at(NAMESPACES).new(name, labels=labels or None)
        made.append(name)
        until(lambda: not api.at(SERVICE_ACCOUNTS, name).gone("default"), "the default service account")
        return name

    yield make
    for name in made:
        try:
            api.at(NAMESPACES).delete(name)
        except Refused as refused:
            if refused.code not in (404, 409):
                raise


@pytest.fixture
def ns(namespaces):
    return namespaces()


@pytest.fixture
def definitions(api):
    definitions = Definitions(api)
    yield definitions
    definitions.close()
