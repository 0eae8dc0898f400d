"""Upload sessions: their number, their end, clients that stall."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.http import BodyTimeout
from atoll.registry import uploads
from atoll.registry.content import Content
from atoll.registry.errors import Refused
from atoll.registry.uploads import Uploads


@pytest.fixture
def content(tmp_path: Path) -> Content:
    content = Content(tmp_path)
    content.create()
    return content


def test_number_of_sessions_is_bounded(content: Content, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "OPEN_MAX", 2)
    sessions = Uploads(content)
    first = sessions.start("a", "sha256")
    sessions.start("a", "sha256")
    with pytest.raises(Refused) as refused:
        sessions.start("a", "sha256")
    assert (refused.value.code, refused.value.status) == ("TOOMANYREQUESTS", 429)
    sessions.cancel(first)
    sessions.start("a", "sha256")


def test_expiry(content: Content):
    now = 1_000_000.0
    sessions = Uploads(content, expiry_s=100, clock=lambda: now)
    idle, busy, fresh = (sessions.start("a", "sha256") for _ in range(3))
    left = content.uploads / f"{'0' * 32}.{'0' * 16}.sha256"  # by a server before this one
    left.touch()
    for path in content.uploads.iterdir():
        os.utime(path, (now, now))
    now += 101
    busy.busy = True
    fresh.touched = now
    assert sessions.expire() == 2
    assert set(content.uploads.iterdir()) == {busy.path, fresh.path}
    with pytest.raises(Refused):
        asyncio.run(sessions.find("a", idle.id))
    assert sessions.expire() == 0


def test_client_that_stalls_is_given_up(content: Content, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "STALL_S", 0.05)
    sessions = Uploads(content)
    session = sessions.start("a", "sha256")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.sleep(30)

    async def work() -> None:
        with sessions.using(session):
            await sessions.receive(session, pieces(), keep=True)

    with pytest.raises(BodyTimeout):
        asyncio.run(work())
    assert (session.size, session.path.read_bytes(), session.busy) == (4, b"some", False)


def test_many_small_pieces(content: Content):
    sessions = Uploads(content)
    session = sessions.start("a", "sha512")

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5000):
            yield b"%d," % number

    async def work() -> None:
        with sessions.using(session):
            await sessions.receive(session, pieces(), keep=False)

    asyncio.run(work())
    assert session.path.read_bytes() == b"".join(b"%d," % number for number in range(5000))
    assert session.size == session.path.stat().st_size


def test_cancelled_request_keeps_hash_and_file_together(content: Content):
    sessions = Uploads(content)
    session = sessions.start("a", "sha256")

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)

    async def work() -> None:
        async def receive() -> None:
            with sessions.using(session):
                await sessions.receive(session, pieces(), keep=True)

        task = asyncio.create_task(receive())
        while session.size < 3 << 20:  # noqa: ASYNC110 - a thread of the code under test changes it
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(work())
    assert session.size == session.path.stat().st_size
    assert session.hash.hexdigest() == hashlib.sha256(session.path.read_bytes()).hexdigest()
