"""Contexts that stay with the engine between builds: only what changed is sent again, and what is built is what is there now."""

import asyncio
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from atoll.build.keptcontexts import KEPT_MAX, KeptContexts
from buildx_harness import context


@pytest.fixture
def rebuild(buildx, tmp_path):
    """Builds the context, and tells what was sent and what is in the image."""
    place = context(tmp_path / "c", "FROM busybox\nCOPY . /c/\n")

    def run():
        told = buildx("build", "-t", "kept", str(place)).stderr
        sent = re.findall(r"transferring context: (\S+)", told)[-1]
        return sent, buildx.run("kept", "sh", "-c", "cd /c && find . -type f | sort | xargs cat")

    run.place = place
    return run


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_only_changes_are_sent(rebuild):
    place = rebuild.place
    (place / "big").write_bytes(b"b" * 2_000_000)
    write(place / "a/one", "one,")
    write(place / "a/two", "two,")
    assert rebuild()[0].endswith("MB")
    before = os.stat(place / "a/one")
    write(place / "a/one", "ONE,")  # of the same length
    os.utime(place / "a/one", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    sent, files = rebuild()
    assert sent == "4B"
    assert "ONE,two," in files
    (place / "a/two").unlink()
    sent, files = rebuild()
    assert sent == "done"
    assert "two," not in files
    assert rebuild()[0] == "done"


def test_what_is_there_may_become_something_else(rebuild):
    place = rebuild.place
    write(place / "d/x/deep", "deep,")
    write(place / "e/x/deep", "stays,")
    write(place / "f", "file,")
    os.link(place / "f", place / "hard")
    assert "deep,stays,file,file," in rebuild()[1]
    shutil.rmtree(place / "d")
    os.symlink("e", place / "d")
    (place / "f").unlink()
    write(place / "f/now", "directory,")
    files = rebuild()[1]
    assert "stays," in files
    assert "directory," in files
    assert "deep," not in files
    (place / "d").unlink()
    write(place / "d/x/deep", "again,")
    shutil.rmtree(place / "f")
    write(place / "f", "back,")
    (place / "hard").unlink()
    os.link(place / "f", place / "hard")
    assert "again,stays,back,back," in rebuild()[1]
    (place / "f").chmod(0o750)
    assert "back," in rebuild()[1]
    (place / "hard").write_text("both,")
    assert "both,both," in rebuild()[1]


def test_builds_at_once_do_not_share(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nARG N\nCOPY . /c/\nRUN echo $N > /n\n", {f"f{number}": "x" for number in range(200)})

    def build(number):
        buildx("build", "-t", f"at-once-{number}", "--build-arg", f"N={number}", str(place))
        return buildx.run(f"at-once-{number}", "sh", "-c", "ls /c | wc -l; cat /n")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, range(4))) == [f"201\n{number}\n" for number in range(4)]


def test_what_a_crash_cut_short_begins_anew(buildx, rebuild, engine):
    write(rebuild.place / "f", "file")
    rebuild()
    for directory in (engine.instance.home / "build/contexts").iterdir():
        (directory / "record").unlink()
        for path in (directory / "tree").glob("f"):
            path.unlink()  # a layer may have it too
            path.write_text("half")
    sent, files = rebuild()
    assert sent != "done"
    assert files.endswith("file")


def test_they_are_part_of_the_cache(buildx, rebuild, engine):
    (rebuild.place / "big").write_bytes(b"b" * 3_000_000)
    rebuild()
    shown = buildx("du", "--verbose").stdout
    assert "local source for c:" in shown
    assert "source.local" in shown
    buildx("prune", "-f", "-a")
    assert not list((engine.instance.home / "build/contexts").iterdir())
    assert rebuild()[0].endswith("MB")


def test_one_build_holds_one(tmp_path):
    async def main():
        contexts = KeptContexts(tmp_path)
        async with contexts.hold("a") as first:
            assert first is not None
            async with contexts.hold("a") as second:
                assert second is None
            async with contexts.hold("a", "other") as third:
                assert third is not None
            (row,) = contexts.rows() if len(contexts.rows()) == 1 else [one for one in contexts.rows() if one["InUse"]]
            names, _ = await contexts.prune()
            assert row["ID"] not in names
            assert len(names) == 1
        for number in range(KEPT_MAX + 3):
            async with contexts.hold(str(number)):
                pass
        assert len(list(tmp_path.iterdir())) <= KEPT_MAX

    asyncio.run(main())


def test_builds_at_once_forget_the_oldest(tmp_path):
    """Each takes away what is too much; none of them stumbles over what another has taken."""
    contexts = KeptContexts(tmp_path)

    async def build(name):
        async with contexts.hold(name) as kept:
            if kept is not None:  # else it is just being forgotten
                (kept.tree / "file").write_text(name)
                kept.close({"file": (0, 1, 2, 3, "")}, {})

    async def main():
        for _ in range(3):
            await asyncio.gather(*(build(f"context {number}") for number in range(2 * KEPT_MAX)))
        await build("the last")

    asyncio.run(main())
    assert len(contexts.rows()) <= KEPT_MAX
    assert not any(row["InUse"] for row in contexts.rows())
