"""RUN --mount through the real docker CLI, and the reading of its words."""

import pytest

from atoll.build.lexer import Logical
from atoll.build.mounts import Mount, read_mounts
from atoll.build.parser import parse_instruction
from atoll.build.words import Expander
from atoll.errors import InvalidInput


def read(flag, values=None, workdir="/"):
    return read_mounts(parse_instruction(Logical(f"RUN --mount={flag} true", 1)), Expander(values or {}), workdir)[0]


@pytest.mark.parametrize(
    ("flag", "mount"),
    [
        ("type=cache,target=/c", Mount("cache", "/c", writable=True, id="/c")),
        ("type=cache,dst=/c/../d,ro,id=x", Mount("cache", "/d", id="x")),
        ("type=cache,target=/c,sharing=LOCKED,mode=0700,uid=1,gid=2", Mount("cache", "/c", "", "", True, "/c", "locked", 0o700, 1, 2)),
        ("target=x,src=a", Mount("bind", "/w/x", "a", id="/w/x")),
        ("type=bind,from=s,source=/a,destination=/b,rw", Mount("bind", "/b", "/a", "s", True, "/b")),
        ("type=tmpfs,target=/t,size=1m", Mount("tmpfs", "/t", id="/t", size=1 << 20)),
        ('"target=/a,b"', Mount("bind", "/a,b", id="/a,b")),
        ("type=cache,target=$DIR/c,id=$DIR", Mount("cache", "/dir/c", writable=True, id="/dir")),
    ],
)
def test_words(flag, mount):
    assert read(flag, {"DIR": "/dir"}, "/w") == mount


@pytest.mark.parametrize(
    "flag",
    [
        "type=cache",
        "type=cache,target=/",
        "type=cache,target=/x,size=1",
        "type=cache,target=/x,sharing=all",
        "type=cache,target=/x,mode=9",
        "type=cache,target=/x,uid=-1",
        "type=tmpfs,target=/x,from=y",
        "type=bind,target",
        "target=/x,rw=maybe",
        "type=disk,target=/x",
    ],
)
def test_refused_words(flag):
    with pytest.raises(InvalidInput):
        read(flag)


def test_a_cache_outlives_builds_and_stays_out_of_layers(engine, build, layer_names):
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/root/.cache/deep cd /root/.cache/deep && echo $N >> log && cat log\n"
    assert "\none\n" in build(text, "--build-arg", "N=one").stdout
    assert "\none\ntwo\n" in build(text, "--build-arg", "N=two").stdout
    assert layer_names() == []
    assert "Using cache" in build(text, "--build-arg", "N=two").stdout
    usage = engine.docker("system", "df", "-v").stdout
    assert "exec.cachemount" in usage
    assert engine.docker("builder", "prune", "-f").stdout
    assert "exec.cachemount" not in engine.docker("system", "df", "-v").stdout
    assert "\none\n" not in build(text, "--build-arg", "N=three").stdout


def test_a_namespace_of_caches(build):
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log && cat /c/log\n"
    namespace = ("--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other")
    assert "\none\n" in build(text, "--build-arg", "N=one").stdout
    done = build(text, "--build-arg", "N=two", *namespace)
    assert "\none\n" not in done.stdout
    assert "not consumed" not in done.stdout


def test_a_new_cache_has_its_owner_mode_and_first_content(build):
    done = build(
        "FROM busybox AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM busybox\n"
        "RUN --mount=type=cache,target=/m,uid=7,gid=8,mode=0750 stat -c '%u %g %a' /m\n"
        "RUN --mount=type=cache,target=/n,from=seed,source=/s cat /n/f\n"
        "USER 7\nRUN --mount=type=cache,target=/m,uid=7,gid=8,mode=0750 touch /m/mine && ls /m\n"
    )
    assert "\n7 8 750\n" in done.stdout
    assert "\nseed\n" in done.stdout
    assert "\nmine\n" in done.stdout


def test_binds(engine, build, layer_names):
    text = (
        "FROM busybox AS made\nRUN mkdir -p /d && echo made > /d/f && ln -s /d /l\nFROM busybox\n"
        "RUN --mount=target=/ctx --mount=from=made,source=/l,target=/made --mount=from=made,target=/all"
        " cat /ctx/in/x /made/f /all/d/f && ! touch /ctx/no 2>/dev/null && ls -d /ctx/in\n"
        "RUN --mount=source=in/x,target=/one,rw echo changed > /one && cat /one\n"
        "RUN --mount=target=/ctx,rw touch /ctx/in/new && ls /ctx/in\n"
        "RUN --mount=target=/ctx ls /ctx/in | wc -l\n"
    )
    done = build(text, files={"in/x": "context\n"})
    assert "context\nmade\nmade\n/ctx/in\n" in done.stdout
    assert "\nchanged\n" in done.stdout
    assert "\nnew\nx\n" in done.stdout
    assert "\n1\n" in done.stdout
    assert layer_names() == []
    assert build(text).stdout.count("Using cache") == 5
    changed = build(text, files={"in/x": "other\n"})
    assert changed.stdout.count("Using cache") == 1


def test_tmpfs_and_what_stands_there_already(engine, build, layer_names):
    done = build(
        "FROM busybox\nRUN mkdir /t && echo below > /t/f\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m ls /t | wc -l && touch /t/x && df -k /t | tail -1 | awk '{print $2}'\n"
    )
    assert "\n0\n1024\n" in done.stdout
    assert layer_names() == []
    assert engine.docker("run", "--rm", "built", "ls", "/t").stdout == "f\n"


def test_variables_in_mounts(build):
    done = build("FROM busybox\nARG DIR=/var/here\nENV SUB=in\nRUN --mount=source=$SUB,target=$DIR cat $DIR/x\n", files={"in/x": "found\n"})
    assert "\nfound\n" in done.stdout


def test_a_mount_from_nowhere(build):
    done = build("FROM busybox\nRUN --mount=source=none,target=/x true\n", check=False)
    assert "mount source none does not exist in the build context" in done.stderr
    done = build("FROM busybox\nRUN --mount=source=../../etc,target=/x ls /x\n", check=False)
    assert done.returncode


@pytest.mark.parametrize("sharing", ["locked", "private"])
def test_caches_that_are_not_shared(build, sharing):
    step = f"RUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} mkdir /c/busy && sleep 0.3 && rmdir /c/busy"
    build(
        f"FROM busybox AS a\n{step} && touch /a\nFROM busybox AS b\n{step} && touch /b\n"
        "FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
