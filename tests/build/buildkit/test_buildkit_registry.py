"""Pushing from a build and pulling into one, with credentials that stay with the client."""

import json

import bcrypt
import pytest

from buildx_harness import context
from registry_harness import AtollRegistry


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    place = tmp_path_factory.mktemp("registry")
    (place / "users").write_text("reef:" + bcrypt.hashpw(b"sesame", bcrypt.gensalt(4)).decode() + "\n")
    served = AtollRegistry(place, "--htpasswd", str(place / "users"))
    yield served.address
    served.stop()


@pytest.fixture
def logged_in(buildx, registry):
    buildx.docker("login", "-u", "reef", "--password-stdin", registry, given="sesame")
    return buildx


def test_a_build_pushes_and_the_next_pulls(logged_in, registry, engine, tmp_path):
    name = f"{registry}/team/app:1"
    place = context(tmp_path / "c", "FROM busybox\nRUN echo pushed > /p\n")
    told = logged_in("build", "--push", "-t", name, "--metadata-file", str(tmp_path / "m"), str(place)).stderr
    assert f"pushing {name}" in told
    assert json.loads((tmp_path / "m").read_text())["containerimage.digest"].startswith("sha256:")
    engine.docker("rmi", name)
    logged_in("build", "-t", "pulled", "-", given=f"FROM {name}\nRUN cat /p\n")
    assert logged_in.run("pulled", "cat", "/p") == "pushed\n"
    assert logged_in("build", "--pull", "-t", "pulled", "-", given=f"FROM {name}\n").returncode == 0


def test_without_credentials(buildx, registry):
    done = buildx("build", "--push", "-t", f"{registry}/team/app:2", "-", given="FROM busybox\nENV A=1\n", check=False)
    assert done.returncode == 1
    assert "failed to solve: access to" in done.stderr
    assert "may require 'docker login'" in done.stderr
    done = buildx("build", "-", given=f"FROM {registry}/team/never:1\n", check=False)
    assert done.returncode == 1
    assert f">>> FROM {registry}/team/never:1" in done.stderr
