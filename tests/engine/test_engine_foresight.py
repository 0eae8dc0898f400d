"""One start after another has the next expected; whatever is expected, what is created is what was asked for."""

import time
from pathlib import Path

import pytest

from atoll.engine.containers.foresight import Foresight
from atoll.kernel.cgroups import Layout
from atoll.runtime.constants import EXPECTED_S

OWN, HOST = ["mount", "pid", "network"], ["mount", "pid"]


class Told:
    """Stands for the runtime, which takes hints and gives nothing back."""

    def __init__(self):
        self.hints = []

    def expect(self, container, namespaces):
        self.hints.append((container, list(namespaces)))


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test sets them."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_single_start_foretells_nothing(clock):
    told = Told()
    foresight = Foresight(told)
    foresight.look(OWN)
    clock[0] += EXPECTED_S
    foresight.look(OWN)
    assert told.hints == []
    taken = [foresight.take(OWN) for _ in range(3)]
    assert told.hints == [(container, OWN) for container in taken]  # each is on its way by now
    assert len(set(taken)) == 3


def test_the_next_one_has_the_id_that_was_told(clock):
    told = Told()
    foresight = Foresight(told)
    for _ in range(4):  # once there is one, it is enough
        foresight.look(OWN)
    ((foreseen, namespaces),) = told.hints
    assert namespaces == OWN
    assert foresight.take(HOST) != foreseen  # of another kind
    assert foresight.take(OWN) == foreseen
    assert foresight.take(OWN) != foreseen
    foresight.look(HOST)
    assert told.hints[-1][1] == HOST


def test_what_waits_no_more_is_not_used(clock):
    told = Told()
    foresight = Foresight(told)
    for _ in range(2):
        foresight.look(OWN)
    clock[0] += EXPECTED_S
    assert foresight.take(OWN) != told.hints[0][0]
    for _ in range(2):
        foresight.look(OWN)
    assert foresight.take(OWN) == told.hints[-1][0]


def of_containers(groups):
    return {path.name for path in groups.iterdir() if path.is_dir() and path.name != "keeper"}


def test_containers_that_follow_one_another(engine, client):
    """Each has its own command, whether its init waited for it or not, and the one that was foreseen has the id that was told."""
    groups = Path(f"{Layout.discover().unified}/atoll-{engine.instance.id}")
    if not groups.is_dir():
        pytest.skip("this machine has no unified cgroups")
    met = False
    for number in range(12):
        foreseen = of_containers(groups)
        container = client.containers.create("busybox", ["sh", "-c", f"hostname; exit {number}"], network_mode="none")
        met = met or container.id in foreseen
        container.start()
        assert container.wait()["StatusCode"] == number
        assert container.logs() == f"{container.id[:12]}\n".encode()
        container.remove()
    assert met
    deadline = time.monotonic() + EXPECTED_S + 5
    while of_containers(groups):  # the last one foreseen came to nothing
        assert time.monotonic() < deadline
        time.sleep(0.02)
