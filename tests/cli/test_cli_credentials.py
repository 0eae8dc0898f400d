"""Logins the command line finds for the engine: stored ones, and those a credential helper keeps."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from atoll.cli.verbs.registry import auth_configs, auth_header

HELPER = """#!/bin/sh
read server
[ "$server" = none.lan ] && { echo credentials not found; exit 1; }
echo "{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"ann\\", \\"Secret\\": \\"of $server\\"}"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    def write(**fields: object) -> None:
        (tmp_path / "config.json").write_text(json.dumps(fields))

    return write


def decoded(text: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(text))


def test_a_pull_asks_the_registrys_helper(config):
    config(credHelpers={"one.lan": "test"})
    header = auth_header("one.lan/app:1")
    assert header
    assert decoded(header["X-Registry-Auth"]) == {"username": "ann", "password": "of one.lan", "serveraddress": "one.lan"}
    assert auth_header("two.lan/app") is None


def test_a_build_takes_all_logins_along(config):
    stored = base64.b64encode(b"bob:secret").decode()
    config(auths={"kept.lan": {"auth": stored}, "store.lan": {}, "none.lan": {}}, credHelpers={"own.lan": "test"}, credsStore="test")
    assert decoded(auth_configs()) == {
        "kept.lan": {"username": "bob", "password": "secret"},
        "store.lan": {"username": "ann", "password": "of store.lan"},
        "own.lan": {"username": "ann", "password": "of own.lan"},
    }


def test_a_helper_that_is_not_there_is_no_login(config):
    config(auths={"store.lan": {}}, credsStore="missing")
    assert decoded(auth_configs()) == {}
