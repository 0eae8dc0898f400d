"""The same Dockerfiles through every door: docker-py's classic build, buildx's bake, docker compose. They give the same images.

tests/build/corpus has one file for each way an instruction can be written; their context is shared.
"""

import json
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[1] / "corpus"
CONTEXT = CORPUS / "context"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in CORPUS.glob("*.Dockerfile"))
TIMED = ("created", "Created")


@pytest.fixture(scope="module")
def classic(engine):
    """Names of images by the classic door."""
    client = engine.client()
    try:
        for name in NAMES:
            client.images.build(path=str(CONTEXT), dockerfile=str(CORPUS / f"{name}.Dockerfile"), tag=f"classic-{name}", rm=True)
    finally:
        client.close()
    return images(engine, "classic")


def images(engine, door):
    """By name: the configuration, and layer by layer what is in it; times left out."""
    saved = engine.instance.home / f"{door}.tar"
    engine.docker("save", "-o", str(saved), *(f"{door}-{name}" for name in NAMES))
    found, trees = {}, {}
    try:
        with tarfile.open(saved) as archive:
            for row in json.load(archive.extractfile("manifest.json")):
                config = json.load(archive.extractfile(row["Config"]))
                for layer in row["Layers"]:
                    if layer not in trees:
                        trees[layer] = tree(archive.extractfile(layer))
                config["history"] = [{key: value for key, value in one.items() if key not in TIMED} for one in config["history"]]
                del config["rootfs"], config["created"]
                (tag,) = row["RepoTags"]
                found[tag.removeprefix(f"{door}-").removesuffix(":latest")] = config, [trees[layer] for layer in row["Layers"]]
    finally:
        saved.unlink()
    return found


def tree(layer):
    with tarfile.open(fileobj=layer) as tar:
        return {
            member.name: (
                *(member.type, oct(member.mode), member.uid, member.gid, member.linkname),
                sha256(tar.extractfile(member).read()).hexdigest() if member.isfile() else "",
            )
            for member in tar
        }


def assert_same(one, other, names=NAMES):
    for name in names:
        assert one[name][0] == other[name][0], name
        assert one[name][1] == other[name][1], name


def test_it_has_every_instruction():
    words = {line.split()[0].upper() for name in NAMES for line in (CORPUS / f"{name}.Dockerfile").read_text().splitlines() if line.split()}
    assert words >= {
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD"),
        *("RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    }
    assert len(NAMES) >= 40


def test_bake_builds_the_same(buildx, engine, classic, tmp_path):
    targets = {
        name: {"context": str(CONTEXT), "dockerfile": str(CORPUS / f"{name}.Dockerfile"), "tags": [f"bake-{name}"], "no-cache": True}
        for name in NAMES
    }
    (tmp_path / "bake.json").write_text(json.dumps({"group": {"default": {"targets": NAMES}}, "target": targets}))
    buildx("bake", "-f", str(tmp_path / "bake.json"), "--allow", f"fs.read={CORPUS}")
    assert_same(classic, images(engine, "bake"))


def test_compose_builds_the_same(buildx, engine, classic, tmp_path):
    services = {
        name: {
            "image": f"compose-{name}",
            "build": {"context": str(CONTEXT), "dockerfile": str(CORPUS / f"{name}.Dockerfile"), "no_cache": True},
        }
        for name in NAMES
    }
    (tmp_path / "compose.json").write_text(json.dumps({"name": "corpus", "services": services}))
    buildx.docker("compose", "-f", str(tmp_path / "compose.json"), "build")
    found = images(engine, "compose")
    for config, _ in found.values():  # compose labels what it builds
        labels = config["config"].pop("Labels")
        if own := {name: value for name, value in labels.items() if not name.startswith("com.docker.compose.")}:
            config["config"]["Labels"] = own
        assert "LABEL com.docker.compose" in config["history"].pop()["created_by"]
    assert_same(classic, found, [name for name in NAMES if name != "empty"])  # with a label it is no longer its base image
