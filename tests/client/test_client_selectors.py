import pytest

from atoll.client.objects import copy_of, is_controlled_by, key_of, owner_reference, split_key
from atoll.client.resources import DEPLOYMENTS, NODES, PODS
from atoll.client.selectors import format_map, matches
from atoll.errors import InvalidInput

LABELS = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_matches(selector, expected):
    assert matches(selector, LABELS) is expected


def test_unknown_operator():
    with pytest.raises(InvalidInput):
        matches({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}, LABELS)


def test_format_map():
    assert format_map({"b": "2", "a": "1"}) == "a=1,b=2"


def test_paths():
    assert PODS.path("default", "web", "log") == "/api/v1/namespaces/default/pods/web/log"
    assert PODS.path() == "/api/v1/pods"
    assert NODES.path("ignored", "n1") == "/api/v1/nodes/n1"
    assert DEPLOYMENTS.path("a") == "/apis/apps/v1/namespaces/a/deployments"


def test_keys_and_owners():
    owner = {"metadata": {"name": "d", "namespace": "n", "uid": "u"}}
    assert split_key(key_of(owner)) == ("n", "d")
    assert split_key(key_of({"metadata": {"name": "node"}})) == (None, "node")
    child = {"metadata": {"name": "c", "ownerReferences": [owner_reference(owner, DEPLOYMENTS)]}}
    assert is_controlled_by(child, owner)
    copied = copy_of(child)
    copied["metadata"]["ownerReferences"][0]["uid"] = "other"
    assert is_controlled_by(child, owner)
    assert not is_controlled_by(copied, owner)
