"""A project of the corpus, copied to a directory of the test's own and driven by the genuine docker compose.

with Project(engine, "scale", directory) as project:
    project("up", "-d", "--wait")          # checked; its standard output
    project.down()                         # also at the end, with volumes and orphans
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from engine_harness import ATOLL, EngineDaemon

CORPUS = Path(__file__).parent / "corpus"
COMMAND_TIMEOUT_S = 40


def names() -> list[str]:
    return sorted(directory.name for directory in CORPUS.iterdir())


class Project:
    def __init__(self, engine: EngineDaemon, name: str, directory: Path, environ: dict[str, str] | None = None) -> None:
        self.engine = engine
        self.name = name
        self.directory = directory / name
        self.environ = {**engine.environ, **(environ or {})}
        self.environ.pop("DOCKER_HOST")  # `atoll compose` finds the engine by itself
        shutil.copytree(CORPUS / name, self.directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            sys.stderr.write(self.run("logs", "--tail", "20", check=False).stdout)
        self.down()

    def run(self, *args: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
        stdin = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(
            [ATOLL, "compose", *args],
            cwd=self.directory,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            **stdin,
        )
        assert not check or not done.returncode, f"compose {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def __call__(self, *args: str) -> str:
        return self.run(*args).stdout

    def exec(self, service: str, command: str, *options: str) -> str:
        """What a shell line prints inside a service's container."""
        return self("exec", "-T", *options, service, "sh", "-c", command)

    def up(self, *args: str) -> str:
        """Up and ready; compose's account of what it did."""
        return self.run("up", "-d", "--wait", *args).stderr

    def down(self) -> None:
        self("--profile", "*", "down", "-v", "--remove-orphans", "-t", "0")

    def containers(self, *args: str) -> dict[str, dict[str, Any]]:
        """Rows of ps, stopped ones too, by container name."""
        rows = [json.loads(line) for line in self("ps", "-a", "--format", "json", *args).splitlines()]
        return {row["Name"]: row for row in rows}

    def inspect(self, service: str, index: int = 1) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", f"{self.name}-{service}-{index}").stdout)
        return found[0]

    def everything(self) -> list[str]:
        """Ids and start times of all containers, networks and volumes of the project: equal as long as nothing was changed."""
        docker, mine = self.engine.docker, f"label=com.docker.compose.project={self.name}"
        ids = docker("ps", "-aq", "--no-trunc", "--filter", mine).stdout.split()
        started = docker("inspect", "-f", "{{.Id}} {{.State.StartedAt}} {{.RestartCount}}", *ids).stdout.splitlines() if ids else []
        networks = docker("network", "ls", "-q", "--no-trunc", "--filter", mine).stdout.split()
        return [*started, *networks, *docker("volume", "ls", "-q", "--filter", mine).stdout.split()]
