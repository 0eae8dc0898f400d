"""A cluster of a test's own instance, started by the command a user types, and the genuine kubectls beside it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from atoll.config import Instance
from engine_harness import ATOLL, EngineDaemon

KUBECTLS = [path for path in (str(Path(ATOLL).parent / "kubectl"), "/usr/bin/kubectl") if os.access(path, os.X_OK)]
START_S = 90


class Cluster:
    """A cluster of an instance of its own, started by the command a user types."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.engine = EngineDaemon(instance)
        self.environ = {**self.engine.environ, "KUBECONFIG": str(instance.kubeconfig)}

    def atoll(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([ATOLL, *words], check=check)

    def kubectl(
        self, *words: str, check: bool = True, stdin: str | None = None, program: str = KUBECTLS[0]
    ) -> subprocess.CompletedProcess[str]:
        return self._run([program, *words], check=check, stdin=stdin)

    def _run(self, words: list[str], *, check: bool, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(words, env=self.environ, input=stdin or "", capture_output=True, text=True, timeout=START_S, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def apply(self, manifest: str) -> str:
        return self.kubectl("apply", "-f", "-", stdin=manifest).stdout

    @property
    def ip(self) -> str:
        return self.atoll("cluster", "ip").stdout.strip()
