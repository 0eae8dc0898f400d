"""Users by htpasswd, and TLS."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from atoll.errors import InvalidInput
from atoll.registry.errors import Refused
from atoll.registry.htpasswd import Htpasswd
from registry_harness import Answer, AtollRegistry


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("users") / "htpasswd"
    file.write_text(f"# people\nann:{hashed('secret')}\n\nbob:{hashed('pass:word ü')}\nlong:{hashed('x' * 100)}\n")
    return file


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, users: Path) -> Iterator[AtollRegistry]:
    registry = AtollRegistry(tmp_path_factory.mktemp("locked"), "--htpasswd", str(users))
    yield registry
    registry.stop()


def challenged(answer: Answer) -> bool:
    assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    return answer.headers["WWW-Authenticate"].startswith('Basic realm="')


@pytest.mark.parametrize("path", ["/v2/", "/v2/_catalog", "/v2/a/tags/list", "/v2/a/manifests/x", "/nowhere"])
def test_nobody_gets_in_without_a_name(locked: AtollRegistry, path: str):
    for method in ("GET", "PUT", "DELETE"):
        assert challenged(locked.ask(method, path))


@pytest.mark.parametrize(("user", "password"), [("ann", "secret"), ("bob", "pass:word ü"), ("long", "x" * 100)])
def test_users_get_in(locked: AtollRegistry, user: str, password: str):
    for _ in range(2):
        assert locked.ask("GET", "/v2/", headers=basic(user, password)).status == 200
    assert challenged(locked.ask("GET", "/v2/", headers=basic(user, password[:-1] if len(password) < 72 else "y" * 100)))


@pytest.mark.parametrize(
    "value",
    [
        *(
            "Bearer x",
            "Basic",
            "Basic !!!",
            "Basic " + base64.b64encode(b"ann").decode(),
            "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        ),
        *(basic(user, password)["Authorization"] for user, password in (("nobody", "secret"), ("", ""), ("ann", ""), ("ann", "a\0b"))),
    ],
)
def test_what_proves_nothing(locked: AtollRegistry, value: str):
    assert challenged(locked.ask("GET", "/v2/", headers={"Authorization": value}))


def test_proven_user_costs_no_second_hash(users: Path, monkeypatch: pytest.MonkeyPatch):
    checks = []
    genuine = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", lambda *args: checks.append(1) or genuine(*args))

    async def work() -> None:
        htpasswd = Htpasswd(users)
        for _ in range(3):
            assert await htpasswd.check(basic("ann", "secret")["Authorization"]) == "ann"
        for _ in range(2):
            with pytest.raises(Refused):
                await htpasswd.check(basic("ann", "wrong")["Authorization"])
            with pytest.raises(Refused):
                await htpasswd.check(basic("nobody", "secret")["Authorization"])

    asyncio.run(work())
    assert len(checks) == 1 + 4  # a name nobody has costs as much


def test_file_is_read_again_when_it_changes(tmp_path: Path):
    file = tmp_path / "htpasswd"
    file.write_text(f"ann:{hashed('old')}\n")

    async def work() -> None:
        htpasswd = Htpasswd(file)
        old, new = (basic("ann", word)["Authorization"] for word in ("old", "new"))
        await htpasswd.check(old)
        file.write_text(f"ann:{hashed('new')}\n")
        os.utime(file, ns=(time.time_ns(), time.time_ns()))
        with pytest.raises(Refused):
            await htpasswd.check(old)
        await htpasswd.check(new)
        file.write_text("broken")
        await htpasswd.check(new)
        file.unlink()
        await htpasswd.check(new)

    asyncio.run(work())


@pytest.mark.parametrize(
    "line",
    [
        "ann",
        ":hash",
        "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "ann:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
        "ann:secret",
        "ann:$2y$05$short",
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, line: str):
    file = tmp_path / "htpasswd"
    file.write_text(f"# first\n{line}\n")
    with pytest.raises(InvalidInput, match="line 2"):
        Htpasswd(file)


def test_tls_with_skopeo(tmp_path: Path, users: Path):
    key, cert = tmp_path / "key.pem", tmp_path / "ca.crt"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    registry = AtollRegistry(tmp_path, "--htpasswd", str(users), "--tls-cert", str(cert), "--tls-key", str(key))
    try:
        command = ["skopeo", "list-tags", f"docker://{registry.address}/none", "--cert-dir", str(tmp_path)]
        done = subprocess.run([*command, "--creds", "ann:secret"], capture_output=True, text=True, check=False)
        assert "404" in done.stderr
        done = subprocess.run([*command, "--creds", "ann:wrong"], capture_output=True, text=True, check=False)
        assert "wrong user name or password" in done.stderr or "unauthorized" in done.stderr
        done = subprocess.run([*command[:3], "--creds", "ann:secret"], capture_output=True, text=True, check=False)
        assert "x509" in done.stderr
    finally:
        registry.stop()
