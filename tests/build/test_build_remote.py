"""What a build fetches: URLs, git repositories, and contexts that are either."""

import asyncio
import contextlib
import hashlib
import http.server
import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from typing import ClassVar

import pytest

from atoll.build import git
from atoll.build.remote import Checksum, download, file_name
from atoll.errors import AtollError, DigestMismatch, Forbidden, InvalidInput, LimitExceeded, NotFound, Unavailable


class Handler(http.server.BaseHTTPRequestHandler):
    files: ClassVar[dict[str, bytes]]
    redirects: ClassVar[dict[str, str]]
    asked: ClassVar[list[str]]

    def do_GET(self):
        self.asked.append(self.path)
        if self.path in self.redirects:
            self.send_response(302)
            self.send_header("Location", self.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"") + (10 if self.path == "/short" else 0)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2015 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web():
    handler = type("Own", (Handler,), {"files": {}, "redirects": {}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        handler.base = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield handler
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository behind git's own daemon: its URL and its commits, oldest first."""
    top = tmp_path_factory.mktemp("git")
    work, bare = top / "work", top / "served/repo.git"
    (work / "sub").mkdir(parents=True)

    def run(*words, cwd=work):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
        return subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q")
    commits = []
    for number in (1, 2):
        (work / "file").write_text(f"{number}")
        (work / "sub/inner").write_text(f"inner {number}")
        (work / "Dockerfile").write_text(f"FROM busybox\nCOPY . /r\nLABEL number={number}\n")
        run("add", ".")
        run("commit", "-q", "-m", str(number))
        commits.append(run("rev-parse", "HEAD"))
        if number == 1:
            run("tag", "-a", "-m", "first", "v1")
            run("branch", "old")
    run("clone", "-q", "--bare", str(work), str(bare), cwd=top)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={top / 'served'}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.02)
    yield f"git://127.0.0.1:{port}/repo.git", commits
    os.killpg(daemon.pid, 9)
    daemon.wait()


def cat(engine, *paths):
    return engine.docker("run", "--rm", "built", "cat", *paths).stdout


def test_add_of_a_url(engine, build, web):
    web.files["/d/data.txt"] = b"data"
    text = f"FROM busybox\nADD {web.base}/d/data.txt?x=1 /in/\nADD --chmod=644 {web.base}/d/data.txt /named\n"
    web.files["/d/data.txt?x=1"] = b"query"
    build(text)
    assert cat(engine, "/in/data.txt", "/named") == "querydata"
    shown = engine.docker("run", "--rm", "built", "stat", "-c", "%a %Y", "/in/data.txt", "/named").stdout
    assert shown == "600 1420070400\n644 1420070400\n"
    assert build(text).stdout.count("Using cache") == 2
    web.files["/d/data.txt"] = b"other"
    assert build(text).stdout.count("Using cache") == 1
    assert cat(engine, "/named") == "other"


def test_a_checksum_saves_the_way(engine, build, web):
    web.files["/f"] = b"checked"
    digest = hashlib.sha256(b"checked").hexdigest()
    text = f"FROM busybox\nADD --checksum=sha256:{digest} {web.base}/f /f\n"
    build(text)
    assert len(web.asked) == 1
    assert "Using cache" in build(text).stdout
    assert len(web.asked) == 1
    wrong = build(text.replace(digest, "0" * 64), check=False)
    assert f"digest mismatch for {web.base}/f" in wrong.stderr


def test_add_unpacks_a_url_when_told(engine, build, web):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo("inner")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"in"))
    web.files["/a.tgz"] = buffer.getvalue()
    build(f"FROM busybox\nADD {web.base}/a.tgz /whole/\nADD --unpack {web.base}/a.tgz /open/\n")
    assert cat(engine, "/open/inner") == "in"
    assert engine.docker("run", "--rm", "built", "ls", "/whole").stdout == "a.tgz\n"


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("/none", NotFound, "answers 404"),
        ("/to-file", (Unavailable, Forbidden), "file:"),
        ("/to-cloud", (Unavailable, Forbidden), "failed|link"),
        ("/loop", Unavailable, "infinite loop"),
        ("/short", Unavailable, "ended after"),
        ("/large", LimitExceeded, "larger than"),
        ("/wrong", DigestMismatch, "digest mismatch"),
        ("/", InvalidInput, "cannot determine filename"),
    ],
)
def test_what_is_not_fetched(web, tmp_path, path, kind, message):
    web.redirects |= {"/to-file": "file:///etc/passwd", "/to-cloud": "http://169.254.169.254/latest", "/loop": "/loop"}
    web.files |= {"/short": b"x", "/large": bytes(1 << 20), "/wrong": b"x"}
    checksum = Checksum.parse("sha256:" + "0" * 64) if path == "/wrong" else None
    with pytest.raises(kind, match=message) as caught:
        asyncio.run(asyncio.wait_for(download(web.base + path, tmp_path, checksum, size_max=1 << 10), 20))
    assert web.base in str(caught.value) or "link" in str(caught.value)


def test_link_local_addresses_are_refused(tmp_path):
    """Where such an address answers; here it is one of our own, on the loopback."""
    address = "169.254.77.77"
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        with socket.create_server((address, 0)) as server:
            url = f"http://{address}:{server.getsockname()[1]}/latest"
            with pytest.raises(Forbidden, match="of this link alone"):
                asyncio.run(download(url, tmp_path))
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@pytest.mark.parametrize(
    "url", ["http://h/a/../..", "http://h/%2e%2e", "http://h/a%2fb", "http://h/%00", "http://[", "http://h/" + "x" * 300]
)
def test_names_that_are_none(url):
    with pytest.raises(InvalidInput):
        file_name(url)


def test_add_of_a_repository(engine, build, repository):
    url, commits = repository
    build(f"FROM busybox\nADD {url} /head/\nADD {url}#v1:sub /tag\nADD --keep-git-dir {url}#old /old\nADD {url}#{commits[0]} /commit\n")
    assert cat(engine, "/head/file", "/tag/inner", "/old/file", "/commit/file") == "2inner 111"
    assert engine.docker("run", "--rm", "built", "ls", "-A", "/head").stdout.split() == ["Dockerfile", "file", "sub"]
    assert ".git" in engine.docker("run", "--rm", "built", "ls", "-A", "/old").stdout
    again = build(f"FROM busybox\nADD {url} /head/\n")
    assert "Using cache" in again.stdout
    assert "has no branch or tag none" in build(f"FROM busybox\nADD {url}#none /x\n", check=False).stderr
    assert "has no directory no" in build(f"FROM busybox\nADD {url}#main:no /x\n", check=False).stderr


def test_a_repository_as_context(engine, repository):
    url, _ = repository
    engine.docker("build", "-t", "built", f"{url}#old")  # the CLI itself fetches it
    assert cat(engine, "/r/file") == "1"
    for number, keep in enumerate("01"):
        with contextlib.closing(engine.client()) as client:
            client.images.build(path=f"{url}#old", tag="built", buildargs={"BUILDKIT_CONTEXT_KEEP_GIT_DIR": keep})
        assert engine.docker("run", "--rm", "built", "ls", "-A", "/r").stdout.split().count(".git") == number


def test_contexts_by_url(engine, web):
    web.files["/Dockerfile"] = b"FROM busybox\nRUN echo alone > /alone\n"
    engine.client().images.build(path=f"{web.base}/Dockerfile", tag="built")
    assert cat(engine, "/alone") == "alone\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in (("Dockerfile", b"FROM busybox\nCOPY f /f\n"), ("f", b"from a tar")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    web.files["/context.tar.gz"] = buffer.getvalue()
    with contextlib.closing(engine.client()) as client:
        client.images.build(path=f"{web.base}/context.tar.gz", tag="built")
    assert cat(engine, "/f") == "from a tar"


@pytest.mark.parametrize(
    "address",
    [
        "git://host/x#--upload-pack=touch",
        "git://-oProxyCommand=x/y.git",
        "ssh://-oProxyCommand=x/y.git",
        "git@-oProxyCommand=x:y.git",
        "ext::sh -c touch% /tmp/x",
        "file:///etc/x.git",
        "https://host/x.git?upload-pack=y",
        "https://host/x.git#a..b",
        "https://host/x.git#a\nb",
        "git@host:-x y",
    ],
)
def test_addresses_git_could_take_for_something_else(address):
    with pytest.raises(InvalidInput):
        git.parse(address)


@pytest.mark.parametrize(
    ("word", "parsed"),
    [
        ("https://host/x.git", git.Address("https://host/x.git")),
        ("https://host/x.git#main:dir/in", git.Address("https://host/x.git", "main", "dir/in")),
        ("https://host/x.git?ref=v1&subdir=d", git.Address("https://host/x.git", "v1", "d")),
        ("git@host:user/x.git#:d", git.Address("git@host:user/x.git", "", "d")),
        ("ssh://git@host:22/x", git.Address("ssh://git@host:22/x")),
    ],
)
def test_addresses(word, parsed):
    assert git.is_git(word)
    assert git.parse(word) == parsed


def test_what_is_no_repository():
    assert not any(git.is_git(word) for word in ("https://host/x.tar", "file", "a@b", "http://[x.git", "git"))


def test_a_submodule_cannot_read_this_machine(engine, build, repository, tmp_path):
    """A .gitmodules that names a path or ext:: is refused by the protocols allowed."""
    url, _ = repository
    address = git.Address(url)

    async def work():
        await git.checkout(address, await git.resolve(address), tmp_path / "out", keep_git=True)
        (tmp_path / "out/.gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = ext::sh -c "touch /tmp/pwned"\n')
        await git._git(tmp_path / "out", "submodule", "add", "--", "file:///", "y")

    (tmp_path / "out").mkdir()
    with pytest.raises(AtollError, match="not allowed"):
        asyncio.run(work())
