"""The same Dockerfiles through every door: buildx's bake, docker compose, docker-py's classic build.

BuildKit's doors give what real BuildKit gives (corpus_harness.py); the classic one the same layers, with the classic builder's history.
"""

import json
import subprocess

import pytest

from buildx_harness import Buildx
from corpus_harness import CONTEXT, CORPUS, FACTS, LATER, NAMES, bake_file, facts_of

# What Docker's two builders do differently beside history: a FROM alone is the base image itself, or an image of its own; WORKDIR belongs
# to root, or to USER, and is a layer where it is there already.
APART = {"empty", "user", "workdir_existing"}
SAID = [("WorkingDir", "/"), ("ArgsEscaped", True)]  # by BuildKit alone
HEADS = ("history", "comment")


@pytest.fixture(scope="module")
def facts(engine):
    def docker(*words):
        return subprocess.run(["docker", *words], env=engine.environ, capture_output=True, check=True)

    def of(prefix, names=NAMES):
        return facts_of(
            lambda *words: subprocess.run(["docker", *words], env=engine.environ, capture_output=True, check=True), prefix, names
        )

    return of


@pytest.fixture(scope="module")
def baked(engine, facts, tmp_path_factory):
    place = tmp_path_factory.mktemp("bake")
    (place / "bake.json").write_bytes(bake_file("bake"))
    Buildx(engine, place / "docker")("bake", "-f", str(place / "bake.json"), "--allow", f"fs.read={CORPUS}", "all")
    return facts("bake")


def test_it_has_every_instruction():
    words = {line.split()[0].upper() for name in NAMES for line in (CORPUS / f"{name}.Dockerfile").read_text().splitlines() if line.split()}
    assert words >= {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD"),
        *("RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
    assert len(NAMES) >= 40


def test_bake_builds_what_buildkit_does(baked):
    expected = json.loads(FACTS.read_text())
    assert expected.keys() == set(NAMES) - LATER
    for name, facts in expected.items():
        assert baked[name] == facts, name


def test_compose_builds_the_same(buildx, baked, facts, tmp_path):
    services = {
        name: {
            "image": f"compose-{name}",
            "build": {"context": str(CONTEXT), "dockerfile": str(CORPUS / f"{name}.Dockerfile"), "no_cache": True},
        }
        for name in NAMES
    }
    (tmp_path / "compose.json").write_text(json.dumps({"name": "corpus", "services": services}))
    buildx.docker("compose", "-f", str(tmp_path / "compose.json"), "build")
    found = facts("compose")
    for name, config in found.items():  # compose labels what it builds
        own = {label: value for label, value in config["config"].pop("Labels").items() if not label.startswith("com.docker.compose.")}
        if own:
            config["config"]["Labels"] = own
        assert config == baked[name], name


def test_the_classic_door_builds_the_same(engine, baked, facts):
    client = engine.client()
    try:
        for name in NAMES:
            client.images.build(path=str(CONTEXT), dockerfile=str(CORPUS / f"{name}.Dockerfile"), tag=f"classic-{name}", rm=True)
    finally:
        client.close()
    for name, classic in facts("classic").items():
        if name not in APART:
            assert {key: value for key, value in classic.items() if key not in HEADS} == _classic(baked[name]), name
        assert not any("buildkit" in one.get("created_by", "") for one in classic["history"]), name


def _classic(facts):
    """BuildKit's FACTS, less what only BuildKit says."""
    config = {key: value for key, value in facts["config"].items() if (key, value) not in SAID}
    return {**{key: value for key, value in facts.items() if key not in HEADS}, "config": config}
