"""Push, pull and login against Debian's docker-registry, by the docker CLI."""

import shutil
import socket
import subprocess
import time

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs the package docker-registry")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    home = tmp_path_factory.mktemp("registry")
    port = free_port()
    (home / "config.yml").write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {home}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", str(home / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_push_and_pull(engine, registry):
    name = f"{registry}/reef/busy:1"
    engine.docker("tag", "busybox", name)
    assert "digest: sha256:" in engine.docker("push", name).stdout
    engine.docker("rmi", name)
    client = engine.client()
    described = client.images.get_registry_data(name)
    client.close()
    assert described.id.startswith("sha256:")
    assert "Downloaded newer image" in engine.docker("pull", name).stdout
    assert engine.docker("run", "--rm", "--pull", "always", "-q", name, "echo", "pulled").stdout == "pulled\n"
    engine.docker("rmi", name)


def test_what_is_not_there(engine, registry):
    done = engine.docker("pull", f"{registry}/no/such:1", check=False)
    assert done.returncode == 1
    assert "not found" in done.stderr
    done = engine.docker("push", f"{registry}/never/made:1", check=False)
    assert "An image does not exist locally with the tag" in done.stderr
    done = engine.docker("pull", "127.0.0.1:1/x", check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_login_to_a_registry_that_asks_nothing(engine, registry, tmp_path):
    config = {"DOCKER_CONFIG": str(tmp_path)}
    engine.environ.update(config)
    try:
        assert "Login Succeeded" in engine.docker("login", registry, "-u", "user", "-p", "secret").stdout
    finally:
        del engine.environ["DOCKER_CONFIG"]
