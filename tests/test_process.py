import asyncio
import logging
import os
import signal
import subprocess
import sys

import pytest

from atoll import process
from atoll.errors import Conflict, Forbidden, Unavailable


def test_a_lock_tells_who_lives(tmp_path):
    path = tmp_path / "run" / "x.pid"
    assert process.pid_of(path) is None
    with process.sole(path, "thing"):
        assert process.pid_of(path) == os.getpid()
        with pytest.raises(Conflict, match=f"another thing holds .* already: process {os.getpid()}"), process.sole(path, "thing"):
            pass
    assert process.pid_of(path) is None


def test_the_lock_goes_with_a_killed_process(tmp_path):
    path = tmp_path / "x.pid"
    program = (
        f"from pathlib import Path; from atoll.process import sole\nwith sole(Path({str(path)!r}), 'x'): print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"1\n"
        assert process.pid_of(path) == child.pid
        child.kill()
    assert process.pid_of(path) is None


def test_what_does_not_come_up_says_its_last_words(tmp_path):
    with pytest.raises(Unavailable, match=r"ended with status 1:\n.*No module named atoll.absent") as caught:
        process.spawn("atoll.absent", log=tmp_path / "logs" / "x.log", home=tmp_path, interpreter=sys.executable)
    assert str(tmp_path / "logs" / "x.log") in str(caught.value)


def test_a_home_is_closed_to_others(tmp_path):
    home = tmp_path / "home"
    with pytest.raises(Unavailable):
        process.spawn("atoll.absent", log=home / "logs" / "x.log", home=home, interpreter=sys.executable)
    assert home.stat().st_mode & 0o007 == 0


def test_a_home_anybody_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(Forbidden, match="anybody may write to"):
        process.spawn("atoll.absent", log=tmp_path / "logs" / "x.log", home=tmp_path, interpreter=sys.executable)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_a_home_of_another_user_is_refused(tmp_path):
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(Forbidden, match="belongs to user 12345"):
        process.settle(tmp_path)


def test_a_daemon_has_its_own_umask(tmp_path):
    before = os.umask(0)
    try:
        process.settle(tmp_path / "home")
        assert os.umask(0) == process.UMASK
    finally:
        os.umask(before)


def test_a_daemon_runs_alone_and_says_how_it_ended(tmp_path, capsys):
    home, log = tmp_path / "home", tmp_path / "home" / "logs" / "thing.log"

    def run(main):
        return process.outcome("thing", lambda: process.alone(main, "thing", home=home, pid_file=home / "thing.pid", log=log))

    async def told_to_end():
        stop = asyncio.Event()
        process.on_end(stop.set)
        os.kill(process.pid_of(home / "thing.pid"), signal.SIGTERM)
        await stop.wait()

    async def refused():
        raise Conflict("not twice")

    async def broken():
        raise ZeroDivisionError("by nought")

    before, handlers = os.umask(0), logging.getLogger().handlers[:]
    try:
        assert [run(told_to_end), run(refused), run(broken)] == [0, 1, 1]
    finally:
        os.umask(before)
        for handler in set(logging.getLogger().handlers) - set(handlers):
            logging.getLogger().removeHandler(handler)
            handler.close()
    assert process.pid_of(home / "thing.pid") is None
    assert capsys.readouterr().err == "atoll: not twice\natoll: the thing failed: ZeroDivisionError('by nought')\n"
    written = log.read_text()
    assert "the thing failed" in written
    assert "in broken" in written  # the traceback
    assert "not twice" not in written
