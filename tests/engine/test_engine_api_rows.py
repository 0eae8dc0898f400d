"""Every operation of the Engine API that an engine without a swarm has, each with all its parameters, on real objects."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from atoll.engine.buildspace import unused_since
from atoll.images import Platform


class Row(NamedTuple):
    method: str
    path: str
    query: dict[str, str] = {}  # noqa: RUF012
    body: object = None
    status: int = 200


def tar(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


PLATFORM = json.dumps({"os": "linux", "architecture": Platform.of_host().architecture})
MINE = json.dumps({"label": ["none=such"]})
NOBODY = base64.urlsafe_b64encode(b"{}").decode()
SLEEP = {"Image": "busybox", "Cmd": ["sleep", "1000"], "OpenStdin": True, "Tty": True}
CONTAINERS = (
    Row("GET", "/containers/json", {"all": "1", "limit": "5", "size": "1", "filters": MINE}),
    Row("POST", "/containers/create", {"name": "one", "platform": "linux"}, SLEEP, 201),
    Row("POST", "/containers/create", {"name": "brief"}, {"Image": "busybox", "Cmd": ["echo", "x"]}, 201),
    Row("POST", "/containers/brief/start", {}, None, 204),
    Row("POST", "/containers/brief/wait", {"condition": "not-running"}),
    Row("POST", "/containers/one/start", {"detachKeys": "ctrl-x"}, None, 204),
    Row("POST", "/containers/one/start", {}, None, 304),
    Row("GET", "/containers/one/json", {"size": "1"}),
    Row("GET", "/containers/one/top", {"ps_args": "-o pid,args"}),
    Row(
        "GET",
        "/containers/brief/logs",
        {"follow": "0", "stdout": "1", "stderr": "1", "since": "1", "until": "4000000000", "timestamps": "1", "tail": "3", "details": "1"},
    ),
    Row("GET", "/containers/one/changes"),
    Row("GET", "/containers/brief/export"),
    Row("GET", "/containers/one/stats", {"stream": "0", "one-shot": "1"}),
    Row("POST", "/containers/one/resize", {"h": "20", "w": "70"}),
    Row("POST", "/containers/one/update", {}, {"Memory": 64 << 20, "RestartPolicy": {"Name": "no"}}),
    Row("POST", "/containers/one/rename", {"name": "uno"}, None, 204),
    Row("POST", "/containers/uno/pause", {}, None, 204),
    Row("POST", "/containers/uno/unpause", {}, None, 204),
    Row("POST", "/containers/brief/attach", {"logs": "1", "stream": "0", "stdin": "1", "stdout": "1", "stderr": "1", "detachKeys": "a"}),
    Row("HEAD", "/containers/uno/archive", {"path": "/etc/passwd"}),
    Row("GET", "/containers/uno/archive", {"path": "/etc/passwd"}),
    Row("PUT", "/containers/uno/archive", {"path": "/tmp", "noOverwriteDirNonDir": "1", "copyUIDGID": "1"}, tar(given="x")),
    Row("POST", "/containers/uno/exec", {}, {"Cmd": ["sleep", "5"], "Tty": True, "DetachKeys": "a", "Env": ["A=1"]}, 201),
    Row("POST", "/exec/{exec}/start", {}, {"Detach": True, "Tty": True}),
    Row("POST", "/exec/{exec}/resize", {"h": "20", "w": "70"}),
    Row("GET", "/exec/{exec}/json"),
    Row("POST", "/containers/uno/kill", {"signal": "WINCH"}, None, 204),
    Row("POST", "/containers/uno/restart", {"signal": "KILL", "t": "1"}, None, 204),
    Row("POST", "/containers/uno/stop", {"signal": "KILL", "t": "1"}, None, 204),
    Row("POST", "/containers/uno/stop", {}, None, 304),
    Row(
        "POST",
        "/commit",
        {"container": "uno", "repo": "made", "tag": "t", "comment": "c", "author": "a", "pause": "1", "changes": "USER 1"},
        {},
        201,
    ),
    Row("DELETE", "/containers/uno", {"v": "1", "force": "1", "link": "0"}, None, 204),
    Row("POST", "/containers/prune", {"filters": MINE}),
)
IMAGES = (
    Row("GET", "/images/json", {"all": "1", "filters": MINE, "shared-size": "1", "digests": "1", "manifests": "1"}),
    Row(
        "POST",
        "/build",
        {
            "dockerfile": "D",
            "t": "built:1",
            "extrahosts": "a:10.0.0.1",
            "q": "1",
            "nocache": "1",
            "cachefrom": "[]",
            "rm": "1",
            "forcerm": "1",
            "memory": "67108864",
            "memswap": "-1",
            "cpushares": "100",
            "cpusetcpus": "0",
            "cpuperiod": "100000",
            "cpuquota": "50000",
            "buildargs": '{"A":"1"}',
            "shmsize": "1048576",
            "labels": '{"l":"1"}',
            "networkmode": "none",
            "platform": "linux",
            "target": "",
            "outputs": "",
            "version": "1",
        },
        tar(D="FROM busybox\nARG A\nRUN test $A = 1\n"),
    ),
    Row("POST", "/build/prune", {"reserved-space": "1", "max-used-space": "1", "min-free-space": "0", "all": "1", "filters": "{}"}),
    Row("POST", "/images/create", {"fromSrc": "-", "repo": "imported", "tag": "1", "message": "m", "changes": "USER 1"}, tar(a="x")),
    Row("GET", "/images/busybox/json", {"manifests": "1"}),
    Row("GET", "/images/busybox/json", {"platform": PLATFORM}),
    Row(
        "GET", "/images/busybox/attestations", {"type": "x", "statement": "1"}, None, 501
    ),  # of images kept as an engine without containerd does
    Row("GET", "/images/busybox/history", {"platform": PLATFORM}),
    Row("POST", "/images/busybox/tag", {"repo": "other", "tag": "2"}, None, 201),
    Row("POST", "/images/127.0.0.1:1/none/push", {"tag": "x", "platform": PLATFORM}, None, 404),
    Row("GET", "/images/busybox/get", {"platform": PLATFORM}),
    Row("GET", "/images/get", {"names": "busybox", "platform": PLATFORM}),
    Row("POST", "/images/load", {"quiet": "1", "platform": PLATFORM}, "{saved}"),
    Row("DELETE", "/images/other:2", {"force": "1", "noprune": "1"}),
    Row("POST", "/images/prune", {"filters": MINE}),
    Row("GET", "/distribution/127.0.0.1:1/none/json", {}, None, 503),
)
REST = (
    Row("GET", "/info"),
    Row("GET", "/version"),
    Row("GET", "/_ping"),
    Row("HEAD", "/_ping"),
    Row("GET", "/events", {"since": "1", "until": "2", "filters": MINE}),
    Row("GET", "/system/df", {"type": "image", "verbose": "1"}),
    Row("POST", "/auth", {}, {"username": "x", "password": "y", "serveraddress": "127.0.0.1:1"}, 503),
    Row("POST", "/volumes/create", {}, {"Name": "vol", "Labels": {"a": "b"}}, 201),
    Row("GET", "/volumes", {"filters": MINE}),
    Row("GET", "/volumes/vol"),
    Row("PUT", "/volumes/vol", {"version": "1"}, {"Spec": {}}, 503),
    Row("DELETE", "/volumes/vol", {"force": "1"}, None, 204),
    Row("POST", "/volumes/prune", {"filters": MINE}),
    Row("POST", "/containers/create", {"name": "seat"}, SLEEP, 201),
    Row("POST", "/networks/create", {}, {"Name": "net", "EnableIPv6": False, "Internal": True}, 201),
    Row("GET", "/networks", {"filters": MINE}),
    Row("GET", "/networks/net", {"verbose": "1", "scope": "local"}),
    Row("GET", "/networks/net", {"scope": "swarm"}, None, 404),
    Row("POST", "/networks/net/connect", {}, {"Container": "seat", "EndpointConfig": {"Aliases": ["a"], "GwPriority": 3}}),
    Row("POST", "/networks/net/disconnect", {}, {"Container": "seat", "Force": True}),
    Row("DELETE", "/networks/net", {}, None, 204),
    Row("POST", "/networks/prune", {"filters": MINE}),
    Row("GET", "/plugins", {"filters": "{}"}),
)


@pytest.mark.parametrize("rows", [CONTAINERS, IMAGES, REST], ids=["containers", "images", "rest"])
def test_rows(client, rows):
    kept = {"exec": "", "saved": b""}
    wrong = []
    for row in rows:
        path = row.path.format(**kept) + ("?" + urlencode(row.query) if row.query else "")
        data = kept["saved"] if row.body == "{saved}" else row.body
        sent = {"json": data} if isinstance(data, dict) else {"data": data}
        answer = client.api.request(
            row.method, f"{client.api.base_url}/v1.51{path}", headers={"X-Registry-Auth": NOBODY}, timeout=20, **sent
        )
        if row.path.endswith("/exec"):
            kept["exec"] = answer.json().get("Id", "")
        elif row.path == "/images/get":
            kept["saved"] = answer.content
        if answer.status_code != row.status or (row.status == 200 and b'"errorDetail"' in answer.content[:100000]):
            wrong.append(f"{row.method} {path}: {answer.status_code}, wanted {row.status}: {answer.text[:300]}")
        elif row.status >= 400:
            assert answer.json()["message"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("sizes", "oldest_kept"),
    [
        ({}, None),
        ({"reserved": 30}, 30),
        ({"reserved": 35}, 30),
        ({"reserved": 5}, None),
        ({"maximum": 60}, 10),
        ({"maximum": 50}, 20),
        ({"maximum": 5, "reserved": 50}, 20),
        ({"minimum_free": 100}, 10),
        ({"minimum_free": 110}, 20),
        ({"minimum_free": 110, "maximum": 30}, 30),
    ],
)
def test_what_a_prune_of_the_build_cache_spares(sizes, oldest_kept):
    rows = [{"LastUsedAt": f"1970-01-01T00:00:{second}Z", "Size": second} for second in (20, 10, 30)]
    assert unused_since(rows, **{"reserved": 0, "maximum": 0, "minimum_free": 0, "free": 100, **sizes}) == oldest_kept


def test_a_prune_without_sizes_spares_nothing_that_has_no_size():
    rows = [{"LastUsedAt": "1970-01-01T00:00:20Z", "Size": 0}, {"LastUsedAt": "1970-01-01T00:00:20Z", "Size": 5}]
    assert unused_since(rows, reserved=0, maximum=0, minimum_free=0, free=100) is None
