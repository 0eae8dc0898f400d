"""A program on the genuine client-go, which packaging/build-clientgo builds: informers, queue, leader election, apply, dynamic client."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from apiserver_tools import Cluster

BUILD = Path(__file__).parents[2] / "packaging/build-clientgo"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the program found in a new cluster."""
    program = subprocess.run([BUILD, "--where"], capture_output=True, text=True, check=True).stdout.strip()
    if not Path(program).exists():
        pytest.skip(f"{BUILD} has not built {program}")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        done = subprocess.run([program, cluster.admin()], capture_output=True, text=True, timeout=60, check=False)
    finally:
        cluster.close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_typed_client(told):
    """Bodies go and come as protobuf; the errors are those that programs tell apart; a conflict is tried again; a list comes in pages."""
    assert told["typed"] == {
        "pages": [0, 1, 2, 3, 4, 5, 6],
        "requests": 3,
        "notFound": True,
        "alreadyExists": True,
        "invalid": True,
        "field": "metadata.name",
        "conflictTries": 2,
        "keptData": "other",
        "patched": "y",
        "left": 0,
    }


def test_a_controller_by_informer_and_queue(told):
    assert told["informer"] == {
        "synced": True,
        "events": {"add": 3, "update": 3, "delete": 1},
        "names": ["clientgo/before", "clientgo/one"],
    }


def test_leaders_follow_each_other(told):
    assert told["election"] == {"follows": "first", "leaders": ["first", "second"], "holder": "second", "transitions": 1}


def test_managers_of_one_object(told):
    assert told["apply"] == {"conflict": True, "value": "b", "extracted": "b", "afterwards": 0}


def test_a_custom_resource_by_discovery_and_the_dynamic_client(told):
    assert told["custom"] == {
        "noMatch": True,
        "deployment": "deployments.v1.namespace",
        "mapped": True,
        "events": ["add", "update-yes", "delete-yes"],
    }


def test_only_the_metadata(told):
    assert told["metadata"] == {"names": ["before", "one"]}
