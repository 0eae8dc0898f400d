"""[sig-instrumentation] Events, by both of their APIs."""

import pytest

from atoll.client.resources import EVENTS, Resource

NEW_EVENTS = Resource("events.k8s.io", "v1", "events", True, "Event")
NOW = "2026-01-02T03:04:05.678901Z"


def core_event(door, name, label):
    involved = {"namespace": door.namespace, "kind": "Pod", "name": "some-pod"}
    return door.make(
        name,
        labels={"testevent": label},
        message="This is a test event",
        reason="Test",
        type="Normal",
        count=1,
        involvedObject=involved,
        source={"component": "test"},
    )


def new_event(door, name, label):
    return door.make(
        name,
        labels={"testevent": label},
        regarding={"namespace": door.namespace, "kind": "Pod", "name": "some-pod"},
        eventTime=NOW,
        note="This is a test event",
        reason="Test",
        action="Do",
        type="Normal",
        reportingController="test-controller",
        reportingInstance="test-node",
    )


def deletes_a_collection(api, ns, resource, make):
    door = api.at(resource, ns)
    for number in range(3):
        door.create(make(door, f"test-event-{number}", "collection"))
    assert len(door.items(labelSelector="testevent=collection")) == 3
    door.delete_all(labelSelector="testevent=collection")
    assert door.items(labelSelector="testevent=collection") == []


@pytest.mark.conformance("[sig-instrumentation] Events should delete a collection of events [Conformance]")
def test_events_are_deleted_together(api, ns):
    deletes_a_collection(api, ns, EVENTS, core_event)


@pytest.mark.conformance("[sig-instrumentation] Events API should delete a collection of events [Conformance]")
def test_events_of_the_new_api_are_deleted_together(api, ns):
    deletes_a_collection(api, ns, NEW_EVENTS, new_event)


@pytest.mark.conformance("[sig-instrumentation] Events should manage the lifecycle of an event [Conformance]")
def test_the_life_of_an_event(api, ns):
    door = api.at(EVENTS, ns)
    door.create(core_event(door, "event-test", "life"))
    selector = {"labelSelector": "testevent=life"}
    assert api.at(EVENTS).names(**selector) == ["event-test"]
    patched = door.patch("event-test", {"message": "This is a test event - patched"}, "strategic")
    assert patched["message"] == door.get("event-test")["message"] == "This is a test event - patched"
    updated = door.change("event-test", lambda event: event.update(series={"count": 100, "lastObservedTime": NOW}))
    assert updated["series"] == {"count": 100, "lastObservedTime": NOW}
    door.delete("event-test")
    assert api.at(EVENTS).names(**selector) == []


@pytest.mark.conformance(
    "[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]"
)
def test_the_life_of_an_event_of_the_new_api(api, ns):
    door = api.at(NEW_EVENTS, ns)
    made = door.create(new_event(door, "event-test", "life"))
    assert made["eventTime"] == NOW
    for found in (
        api.at(NEW_EVENTS).items(labelSelector="testevent=life"),
        door.items(fieldSelector="reportingController=test-controller"),
    ):
        assert [each["metadata"]["name"] for each in found] == ["event-test"]
    patched = door.patch("event-test", {"series": {"count": 2, "lastObservedTime": NOW}}, "strategic")
    assert patched["series"]["count"] == 2
    updated = door.change("event-test", lambda event: event["series"].update(count=100))
    assert updated["series"]["count"] == 100
    assert updated["note"] == api.at(EVENTS, ns).get("event-test")["message"]
    door.delete("event-test")
    assert door.names() == []
