"""The corpus built by Docker and by us: the same file trees, the same configurations.

One docker command drives both, with its classic builder. Files that use what came after that builder's time are left to the other doors; a
sample of the rest is compared each time, all of it with ATOLL_TEST_PEERS=1. What today's builder makes is written down in buildkit.json,
which that daemon, where it is there, confirms; with ATOLL_TEST_RECORD=1 it is written anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from buildx_harness import PLUGINS
from corpus_harness import CONTEXT, CORPUS, FACTS, LATER, NAMES, bake_file, facts_of
from engine_harness import EngineDaemon, busybox_tar

# BuildKit's own: the classic builder of docker.io refuses it, or takes it for something else.
NEWER = re.compile(
    r"<<|--(mount|link|parents|exclude|chmod|network|unpack|start-interval|checksum|security)\b|TARGET|BUILDPLATFORM", re.ASCII
)
# What the classic builder cannot do: newer expansions, leaving out a stage that fails. And a container of that volume's name: 20.10 refuses
# it as we do.
BEYOND = {"env_forms", "stages_unused", "volume"}
COMPARED = [name for name in NAMES if name not in BEYOND and not NEWER.search((CORPUS / f"{name}.Dockerfile").read_text())]
# All take a minute or two; every run takes these.
SAMPLE = ("add_archive", "copy_links", "copy_through_link", "entrypoint_cmd", "healthcheck", "onbuild", "user", "workdir")
FIELDS = (
    *("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels"),
    *("StopSignal", "Healthcheck", "Shell", "OnBuild"),
)
# What a container has beside its image.
GIVEN = re.compile(r"(\.dockerenv|dev|proc|sys|etc/(hosts|hostname|resolv\.conf|mtab))(/.*)?/?$")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(300),
]
Docker = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def peer() -> Iterator[Docker]:
    engines = pytest.importorskip("benchmarks.engines")
    if not engines.Docker.is_there():
        pytest.skip("no dockerd is there: packaging/fetch-docker --engine .venv/docker brings it")
    with tempfile.TemporaryDirectory(prefix="atp-", dir="/tmp") as place:
        daemon = engines.Docker(Path(place))
        try:
            docker = running({**daemon.environ, "DOCKER_BUILDKIT": "0"})
            docker("import", "-c", 'CMD ["sh"]', "-", "busybox:latest", data=busybox_tar())
            yield docker
        finally:
            daemon.close()


@pytest.fixture(scope="module")
def ours(engine: EngineDaemon) -> Docker:
    return running({**engine.environ, "DOCKER_BUILDKIT": "0"})


def running(environ: dict[str, str]) -> Docker:
    def docker(*words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(["docker", *words], env=environ, input=data, capture_output=True, check=False, timeout=60)
        assert not done.returncode, f"docker {' '.join(words)}: {done.stdout.decode()}{done.stderr.decode()}"
        return done

    docker.environ = environ  # type: ignore[attr-defined]
    return docker


def built(docker: Docker, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration and the file tree of one of the corpus."""
    docker("build", "-q", "-t", "corpus", "-f", str(CORPUS / f"{name}.Dockerfile"), str(CONTEXT))
    config = json.loads(docker("image", "inspect", "corpus").stdout)[0]["Config"]
    box = docker("create", "corpus", "none").stdout.decode().strip()
    try:
        return {field: config.get(field) or None for field in FIELDS}, tree(docker("export", box).stdout)
    finally:
        docker("rm", box)


def tree(data: bytes) -> dict[str, Any]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {}
        for member in tar:
            if GIVEN.match(member.name):
                continue
            held = member.isreg() or member.islnk()
            content = hashlib.sha256(tar.extractfile(member).read()).hexdigest() if held else ""  # type: ignore[union-attr]
            kind = tarfile.REGTYPE if held else member.type  # which of a file's names comes first is nobody's to say
            linked = member.linkname if member.issym() else ""
            found[member.name.strip("/")] = (kind, oct(member.mode & 0o7777), member.uid, member.gid, linked, content)
    return found


@pytest.mark.parametrize("name", COMPARED if os.environ.get("ATOLL_TEST_PEERS") else SAMPLE)
def test_the_same_as_docker_makes(peer: Docker, ours: Docker, name: str):
    (their_config, their_tree), (our_config, our_tree) = built(peer, name), built(ours, name)
    assert our_config == their_config
    differing = {path: (their_tree.get(path), our_tree.get(path)) for path in their_tree.keys() | our_tree.keys()}
    assert not {path: both for path, both in differing.items() if both[0] != both[1]}


@pytest.mark.skipif(not {"ATOLL_TEST_PEERS", "ATOLL_TEST_RECORD"} & os.environ.keys(), reason="takes long: set ATOLL_TEST_PEERS=1")
def test_what_buildkit_makes_is_written_down(peer: Docker, tmp_path: Path):
    version = peer("version", "--format", "{{.Server.Version}}").stdout.decode()
    if int(version.split(".")[0]) < 28 or not (PLUGINS / "docker-buildx").exists():
        pytest.skip(f"dockerd {version.strip()} has another BuildKit, or docker-buildx is not there")
    (tmp_path / "bake.json").write_bytes(bake_file("recorded"))
    command = [str(PLUGINS / "docker-buildx"), "bake", "-f", str(tmp_path / "bake.json"), "--allow", f"fs.read={CORPUS}"]
    done = subprocess.run(command, env=peer.environ, capture_output=True, check=False, timeout=200)  # type: ignore[attr-defined]
    assert not done.returncode, done.stderr.decode(errors="replace")[-2000:]
    found = facts_of(peer, "recorded", [name for name in NAMES if name not in LATER])
    if os.environ.get("ATOLL_TEST_RECORD"):
        rows = (f"{json.dumps(name)}: {json.dumps(found[name], sort_keys=True, ensure_ascii=False)}" for name in sorted(found))
        FACTS.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    assert found == json.loads(FACTS.read_text())


def test_the_corpus_covers_the_language():
    text = "\n".join(path.read_text() for path in CORPUS.glob("*.Dockerfile")).upper()
    wanted = "FROM RUN CMD LABEL MAINTAINER EXPOSE ENV ADD COPY ENTRYPOINT VOLUME USER WORKDIR ARG ONBUILD STOPSIGNAL HEALTHCHECK SHELL"
    assert not [name for name in wanted.split() if not re.search(rf"^{name}\b", text, re.MULTILINE)]
    assert len(NAMES) >= 40
