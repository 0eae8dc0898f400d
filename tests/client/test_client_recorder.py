import virtual_time
from atoll.client import recorder
from atoll.client.resources import EVENTS, NODES, PODS
from atoll.errors import StatusError
from fake_cluster import FakeClient

POD = {"metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}}


def test_writes_an_event_and_counts_repeats():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        events = recorder.Recorder(client, "kubelet", host="n1", clock=virtual_time.clock)
        for _ in range(3):
            events.event(POD, PODS, "Warning", "BackOff", "back-off restarting", field_path="spec.containers{web}")
        events.event(POD, PODS, "Normal", "Started", "Started container web")
        await events.flush()
        first, second = client.all(EVENTS)
        assert first["count"] == 3
        assert first["involvedObject"] == {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web",
            "namespace": "shop",
            "uid": "u1",
            "resourceVersion": "7",
            "fieldPath": "spec.containers{web}",
        }
        assert first["source"] == {"component": "kubelet", "host": "n1"}
        assert (second["count"], second["type"], second["metadata"]["namespace"]) == (1, "Normal", "shop")

    virtual_time.run(scenario())


def test_a_vanished_event_is_made_anew_and_refusals_are_survived():
    async def scenario():
        client = FakeClient(virtual_time.clock)
        events = recorder.Recorder(client, "x", clock=virtual_time.clock)
        node = {"metadata": {"name": "n1", "uid": "u2"}}
        events.event(node, NODES, "Normal", "Starting", "hello")
        await events.flush()
        await client.delete(EVENTS, client.all(EVENTS)[0]["metadata"]["name"], "default")
        client.fail("create events *", StatusError(403, "Forbidden", "namespace is terminating"))
        events.event(node, NODES, "Normal", "Starting", "hello")
        events.event(node, NODES, "Normal", "Starting", "hello")
        await events.flush()
        (only,) = client.all(EVENTS, "default")
        assert only["count"] == 1

    virtual_time.run(scenario())


def test_a_full_queue_drops(monkeypatch):
    async def scenario():
        client = FakeClient(virtual_time.clock)
        monkeypatch.setattr(recorder, "QUEUE_MAX", 2)
        events = recorder.Recorder(client, "x", clock=virtual_time.clock)
        for number in range(5):
            events.event(POD, PODS, "Normal", "R", str(number))
        await events.flush()
        assert [event["message"] for event in client.all(EVENTS)] == ["0", "1"]

    virtual_time.run(scenario())
