from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import pytest

from atoll.config import Instance
from engine_harness import EngineDaemon


@pytest.fixture(scope="module")
def engine(module_instance: Instance) -> Iterator[EngineDaemon]:
    daemon = EngineDaemon(module_instance)
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()


@pytest.fixture
def build(engine, tmp_path):
    def run(dockerfile, *flags, files=None, check=True, context=None):
        directory = context or tmp_path
        (directory / "Dockerfile").write_text(dockerfile)
        for name, content in (files or {}).items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return engine.docker("build", "-t", "built", *flags, str(directory), check=check)

    return run


@pytest.fixture
def layer_names(engine, tmp_path):
    """The members of the last layer of the image `built`."""

    def names():
        archive = tmp_path / "saved.tar"
        engine.docker("save", "-o", str(archive), "built")
        with tarfile.open(archive) as saved:
            manifest = json.load(saved.extractfile("manifest.json"))
            top = io.BytesIO(saved.extractfile(manifest[0]["Layers"][-1]).read())
        archive.unlink()
        with tarfile.open(fileobj=top) as layer:
            return layer.getnames()

    return names
