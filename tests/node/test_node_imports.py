"""What an engine at rest has loaded: every module of a feature that nobody has asked for is memory on every machine."""

from __future__ import annotations

import subprocess
import sys

# Each stands for what it brings along: builds, name service, BuildKit's gRPC, web sockets, certificates, the kubelet, other floors.
NOT_AT_REST = [
    "atoll.apiserver",
    "atoll.build.builder",
    "atoll.build.buildkit",
    "atoll.build.client",
    "atoll.build.remote",
    "atoll.cli",
    "atoll.cluster",
    "atoll.controllers",
    "atoll.http.http2",
    "atoll.http.spdy",
    "atoll.http.websocket",
    "atoll.network.answers",
    "atoll.network.dns_server",
    "atoll.node.agent",
    "atoll.node.pods",
    "atoll.registry",
    "atoll.scheduler",
    "atoll.store",
    "bcrypt",
    "configparser",
    "cryptography",
    "csv",
    "difflib",
    "dns",
    "google.protobuf",
    "h11",
    "h2",
    "http.client",
    "idna",
    "importlib.metadata",
    "multiprocessing",
    "packaging",
    "pydoc",
    "tomllib",
    "unittest",
    "urllib.request",
    "wsproto",
    "yaml",
    "zipfile",
]
PROGRAM = """
import asyncio, sys
from pathlib import Path
from atoll.config import Instance
from atoll.engine.settings import Settings
from atoll.node import daemon
async def made():
    daemon.Engine(Instance(Path(sys.argv[1])), Settings(trust_host=False))
asyncio.run(made())
print(*sys.modules)
"""


def test_an_engine_loads_no_feature_before_it_is_used(tmp_path):
    command = [sys.executable, "-P", "-c", PROGRAM, str(tmp_path / "h")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "atoll.engine.routes.containers" in loaded
    assert not loaded & set(NOT_AT_REST)
