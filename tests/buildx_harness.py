"""The genuine `docker buildx` and bake, with a configuration of the test's own, on a test's engine.

buildx = Buildx(engine, directory)
buildx("build", "-t", "x", "context")     # checked; what it says is in .stderr, progress being plain
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine_harness import EngineDaemon

PLUGINS = Path(sys.prefix) / "docker" / "cli-plugins"
TIMEOUT_S = 40


class Buildx:
    def __init__(self, engine: EngineDaemon, directory: Path) -> None:
        if not (PLUGINS / "docker-buildx").exists():
            pytest.skip("docker-buildx is not there: packaging/fetch-docker brings it")
        plugins = directory / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        (plugins / "docker-buildx").symlink_to(PLUGINS / "docker-buildx")
        (plugins / "docker-compose").symlink_to(Path(sys.executable).parent / "docker-compose")
        (directory / "config.json").write_text("{}")
        self.config = directory
        self.engine = engine
        self.environ = {**engine.environ, "DOCKER_CONFIG": str(directory), "BUILDKIT_PROGRESS": "plain"}
        self.environ.pop("DOCKER_BUILDKIT")

    def __call__(
        self, *args: str, check: bool = True, given: bytes | str | None = None, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return self.docker("buildx", *args, check=check, given=given, cwd=cwd, **environ)

    def docker(
        self, *args: str, check: bool = True, given: bytes | str | None = None, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        data = given.encode() if isinstance(given, str) else given
        ends = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        env = {**self.environ, **environ}
        done = subprocess.run(["docker", *args], env=env, capture_output=True, timeout=TIMEOUT_S, check=False, cwd=cwd, **ends)
        result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace"))
        assert not check or not result.returncode, f"docker {' '.join(args)}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["docker", "buildx", *args],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def inspect(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.engine.docker("inspect", name).stdout)[0]
        return found

    def run(self, image: str, *words: str) -> str:
        return self.engine.docker("run", "--rm", image, *words).stdout


def context(directory: Path, dockerfile: str, files: dict[str, str] | None = None) -> Path:
    """A build context in DIRECTORY."""
    for name, content in {"Dockerfile": dockerfile, **(files or {})}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return directory


def files_below(directory: Path) -> set[str]:
    return {os.path.relpath(os.path.join(top, name), directory) for top, _, names in os.walk(directory) for name in names}
