"""Logs read back: tail over blocks and rotations, times, partial lines, following."""

import asyncio
import os

import pytest

from atoll.engine.containers import logs
from atoll.engine.containers.logs import Selection, read
from atoll.units import timestamp


def entry(second, text, stream="stdout", tag="F"):
    return f"{timestamp(second * 10**9)} {stream} {tag} {text}\n".encode()


def collect(path, ended=None, **selection):
    async def run():
        return [piece async for batch in read(path, Selection(**selection), ended) for piece in batch]

    return asyncio.run(run())


def texts(pieces):
    return [data.decode() for _, data in pieces]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(b"".join(entry(second, f"line {second}", "stderr" if second % 5 == 0 else "stdout") for second in range(100)))
    return path


def test_all_of_it(log):
    assert texts(collect(log)) == [f"line {second}\n" for second in range(100)]
    assert len(collect(log, stdout=False)) == 20


@pytest.mark.parametrize("block", [64, 1000, 1 << 18])
@pytest.mark.parametrize("tail", [0, 1, 7, 99, 100, 1000])
def test_the_tail_whatever_the_blocks(log, monkeypatch, block, tail):
    monkeypatch.setattr(logs, "BLOCK", block)
    assert texts(collect(log, tail=tail)) == [f"line {second}\n" for second in range(100)][max(0, 100 - tail) :]


def test_the_tail_of_one_stream(log):
    assert texts(collect(log, tail=2, stdout=False)) == ["line 90\n", "line 95\n"]


def test_times(log):
    assert texts(collect(log, since_ns=97 * 10**9)) == ["line 97\n", "line 98\n", "line 99\n"]
    assert texts(collect(log, until_ns=1 * 10**9)) == ["line 0\n", "line 1\n"]
    assert texts(collect(log, tail=1, timestamps=True)) == [f"{timestamp(99 * 10**9)} line 99\n"]


def test_pieces_of_a_long_line(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(entry(1, "first", tag="P") + entry(1, "other", "stderr") + entry(2, " second", tag="P") + entry(3, " end"))
    assert texts(collect(path, stderr=False)) == ["first", " second", " end\n"]
    assert texts(collect(path, stderr=False, timestamps=True))[1:] == [" second", " end\n"]
    assert texts(collect(path, stderr=False, tail=1)) == ["first", " second", " end\n"]


def test_an_unfinished_line_waits(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(entry(1, "whole") + entry(2, "half")[:20])
    assert texts(collect(path)) == ["whole\n"]


def test_rotated_files_come_first(tmp_path):
    path = tmp_path / "container.log"
    for name, second in (("container.log.2", 1), ("container.log.1", 2), ("container.log", 3)):
        (tmp_path / name).write_bytes(entry(second, f"line {second}"))
    assert texts(collect(path)) == ["line 1\n", "line 2\n", "line 3\n"]
    assert texts(collect(path, tail=2)) == ["line 2\n", "line 3\n"]


def test_no_log_at_all(tmp_path):
    assert collect(tmp_path / "container.log") == []


def open_files():
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


def test_following_through_a_rotation_until_the_end(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(entry(1, "before"))

    async def run():
        ended = asyncio.get_running_loop().create_future()
        seen = []

        async def follow():
            async for batch in read(path, Selection(), ended):
                seen.extend(texts(batch))

        task = asyncio.create_task(follow())

        async def until(count):
            async with asyncio.timeout(5):
                while len(seen) < count:  # noqa: ASYNC110  # the follower fills a plain list
                    await asyncio.sleep(0.005)

        await until(1)
        with path.open("ab") as file:
            file.write(entry(2, "while"))
        await until(2)
        with path.open("ab") as file:
            file.write(entry(3, "last of the old"))
        path.rename(tmp_path / "container.log.1")
        path.write_bytes(entry(4, "first of the new"))
        await until(4)
        assert f"{tmp_path}/container.log.1" not in open_files()  # else rotated files would take disk for as long as the log is followed
        with path.open("ab") as file:
            file.write(entry(5, "at the end"))
        ended.set_result(None)
        await asyncio.wait_for(task, 5)
        return seen

    assert asyncio.run(run()) == [f"{text}\n" for text in ("before", "while", "last of the old", "first of the new", "at the end")]


def test_following_falls_behind_several_rotations(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(entry(0, "line 0"))

    async def run():
        ended = asyncio.get_running_loop().create_future()
        batches = read(path, Selection(), ended)
        seen = texts(await anext(batches))
        for number in range(1, 4):  # while the reader is held up elsewhere
            for older in range(number, 0, -1):
                before = tmp_path / (f"container.log.{older - 1}" if older > 1 else "container.log")
                before.rename(tmp_path / f"container.log.{older}")
            path.write_bytes(entry(number, f"line {number}"))
        ended.set_result(None)
        async for batch in batches:
            seen += texts(batch)
        return seen

    assert asyncio.run(run()) == [f"line {number}\n" for number in range(4)]


def test_a_rotation_leaves_a_moment_without_a_log(tmp_path):
    path = tmp_path / "container.log"
    path.write_bytes(entry(1, "old"))

    async def run():
        ended = asyncio.get_running_loop().create_future()
        batches = read(path, Selection(), ended)
        await anext(batches)
        path.rename(tmp_path / "container.log.1")
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.05)
        path.write_bytes(entry(2, "new"))
        found = texts(await asyncio.wait_for(following, 5))
        ended.set_result(None)
        await batches.aclose()
        return found

    assert asyncio.run(run()) == ["new\n"]
