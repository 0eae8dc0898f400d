"""`docker import URL` and `docker search`, as the docker command asks for them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine_harness import EngineDaemon, busybox_tar, has_docker

pytestmark = pytest.mark.skipif(not has_docker(), reason="the docker CLI is not installed")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "root.tar").write_bytes(busybox_tar())
    (tmp_path / "text").write_text("no tar")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_import_from_a_url(engine: EngineDaemon, place: str):
    engine.docker("import", "-c", 'CMD ["echo", "from afar"]', f"{place}/root.tar", "fetched:1")
    assert engine.docker("run", "--rm", "--network", "none", "fetched:1").stdout == "from afar\n"
    assert f"Imported from {place}/root.tar" in engine.docker("history", "--no-trunc", "fetched:1").stdout
    engine.docker("rmi", "fetched:1")


@pytest.mark.parametrize(("path", "message"), [("none.tar", "the server answers 404"), ("text", "truncated")])
def test_urls_that_lead_to_no_tar(engine: EngineDaemon, place: str, path: str, message: str):
    done = engine.docker("import", f"{place}/{path}", check=False)
    assert done.returncode
    assert message in done.stderr


def test_other_registries_cannot_be_searched(engine: EngineDaemon):
    done = engine.docker("search", "registry.lan:5000/app", check=False)
    assert "only Docker Hub has a search" in done.stderr
