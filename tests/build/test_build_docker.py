"""Builds through the real docker CLI's classic builder, on a daemon of the test's own."""

import json
import os
import subprocess

import pytest


def run(engine, *words):
    return engine.docker("run", "--rm", "built", *words).stdout


def inspect(engine):
    return json.loads(engine.docker("inspect", "built").stdout)[0]


def test_every_instruction(engine, build):
    build(
        """
        FROM busybox AS base
        ARG WHO=world
        ENV GREETING="hello $WHO" DIR=/srv
        LABEL one=1 "two words"=2
        WORKDIR $DIR
        WORKDIR app
        COPY files/ ./
        COPY --chown=7:8 --chmod=600 files/a.txt owned.txt
        RUN echo "$GREETING" > greeting && pwd > where
        EXPOSE 80 53/udp
        VOLUME /data
        USER 1000:1000
        STOPSIGNAL SIGINT
        HEALTHCHECK --interval=5s --retries=2 CMD true
        ENTRYPOINT ["cat"]
        CMD ["greeting"]
        """,
        "--build-arg",
        "WHO=docker",
        files={"files/a.txt": "A", "files/sub/b.txt": "B"},
    )
    assert run(engine) == "hello docker\n"
    assert run(engine, "where") == "/srv/app\n"
    assert run(engine, "sub/b.txt") == "B"
    config = inspect(engine)["Config"]
    assert config["Env"][-2:] == ["GREETING=hello docker", "DIR=/srv"]
    assert config["Labels"] == {"one": "1", "two words": "2"}
    assert config["WorkingDir"] == "/srv/app"
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert config["Volumes"] == {"/data": {}}
    assert config["User"] == "1000:1000"
    assert config["StopSignal"] == "SIGINT"
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2}
    listing = engine.docker("run", "--rm", "--user", "0", "--entrypoint", "ls", "built", "-ln", "owned.txt").stdout.split()
    assert listing[0].startswith("-rw-------")
    assert listing[2:4] == ["7", "8"]


def test_second_build_is_all_from_the_cache(engine, build, tmp_path):
    text = "FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /stamp\nCOPY x /x\nENV A=1\nRUN cat /x > /y\n"
    build(text, files={"x": "1"})
    first = run(engine, "cat", "/stamp"), inspect(engine)["Id"]
    os.utime(tmp_path / "x", (1, 1))
    again = build(text)
    assert again.stdout.count("Using cache") == 4
    assert (run(engine, "cat", "/stamp"), inspect(engine)["Id"]) == first
    changed = build(text, files={"x": "2"})
    assert changed.stdout.count("Using cache") == 1
    assert run(engine, "cat", "/y") == "2"
    fresh = build(text, "--no-cache")
    assert "Using cache" not in fresh.stdout
    assert run(engine, "cat", "/stamp") != first[0]


def test_stages_that_nothing_needs_are_not_built(engine, build):
    done = build(
        """
        FROM busybox AS tools
        RUN echo tool > /tool
        FROM busybox AS unused
        RUN exit 1
        FROM busybox
        COPY --from=tools /tool /bin/tool.txt
        COPY --from=busybox /bin/busybox /copied
        """
    )
    assert "exit 1" not in done.stdout
    assert run(engine, "cat", "/bin/tool.txt") == "tool\n"
    build("FROM busybox AS one\nENV STAGE=one\nFROM one\nENV STAGE=two\n", "--target", "one")
    assert "STAGE=one" in inspect(engine)["Config"]["Env"]


def test_entrypoint_forgets_an_inherited_cmd(engine, build):
    build('FROM busybox\nCMD ["inherited"]\n')
    engine.docker("tag", "built", "parent")
    build('FROM parent\nENTRYPOINT ["echo"]\n')
    assert inspect(engine)["Config"]["Cmd"] is None
    build('FROM parent\nCMD ["own"]\nENTRYPOINT ["echo"]\n')
    assert run(engine) == "own\n"


def test_args_hold_where_they_are_declared(engine, build):
    build(
        'ARG BASE=busybox\nFROM $BASE\nARG A=default\nARG B\nRUN echo "$A-$B-$BASE" > /out\nENV A=env\nRUN echo $A >> /out\n',
        *("--build-arg", "B=given"),
    )
    assert run(engine, "cat", "/out") == "default-given-\nenv\n"
    done = build("FROM busybox\n", "--build-arg", "UNKNOWN=1")
    assert "were not consumed" in done.stdout


def test_ignored_files_stay_behind(engine, build):
    build(
        "FROM busybox\nCOPY . /ctx\n",
        files={".dockerignore": "*.log\n!keep.log\nsecret\n", "a.log": "", "keep.log": "", "secret/key": "", "ok": ""},
    )
    found = set(engine.docker("run", "--rm", "built", "find", "/ctx", "-type", "f").stdout.split())
    assert found == {"/ctx/.dockerignore", "/ctx/Dockerfile", "/ctx/keep.log", "/ctx/ok"}


def test_a_dockerfile_from_elsewhere_is_no_part_of_the_context(engine, tmp_path):
    (tmp_path / "f").write_text("x")
    engine.docker("build", "-t", "built", "-f", "-", str(tmp_path), input="FROM busybox\nCOPY . /ctx\n")
    assert run(engine, "ls", "-A", "/ctx") == "f\n"


def test_an_ignored_dockerfile_still_builds(engine, build):
    build("FROM busybox\nCOPY . /ctx\n", files={".dockerignore": "*\n!f\n", "f": ""})
    assert run(engine, "ls", "-A", "/ctx") == "f\n"


def test_limits_of_steps(build):
    done = build("FROM busybox\nRUN ulimit -n && cat /etc/hosts\n", "--ulimit=nofile=77:88", "--add-host=there:10.1.2.3")
    assert "\n77\n" in done.stdout
    assert "10.1.2.3\tthere" in done.stdout


def test_add_unpacks_archives(engine, build, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("packed")
    subprocess.run(["tar", "-czf", tmp_path / "a.tgz", "-C", tmp_path / "in", "file"], check=True)
    build("FROM busybox\nADD a.tgz /out/\nCOPY a.tgz /plain/\n")
    assert run(engine, "cat", "/out/file") == "packed"
    assert run(engine, "ls", "/plain") == "a.tgz\n"


def test_copy_goes_where_links_lead(engine, build):
    build("FROM busybox\nRUN mkdir /real && ln -s /real /link\nCOPY x /link/x\n", files={"x": "1"})
    assert run(engine, "cat", "/real/x") == "1"
    assert "link" in run(engine, "ls", "-l", "/").split("/real")[0]


def test_heredoc_and_shell(engine, build):
    build('FROM busybox\nSHELL ["/bin/sh", "-ec"]\nRUN <<EOF\necho one > /out\necho two >> /out\nEOF\n')
    assert run(engine, "cat", "/out") == "one\ntwo\n"


def test_onbuild_runs_in_the_child(engine, build):
    build("FROM busybox\nONBUILD RUN echo triggered > /t\n")
    engine.docker("tag", "built", "trigger")
    build("FROM trigger\n")
    assert run(engine, "cat", "/t") == "triggered\n"
    assert not inspect(engine)["Config"].get("OnBuild")


def test_nothing_of_the_builder_stays_in_a_layer(engine, build, layer_names):
    build("FROM scratch\nCOPY --from=busybox / /\nRUN true\n")
    assert engine.docker("history", "--format", "{{.Size}}", "built").stdout.split()[0] == "0B"
    assert layer_names() == []


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM busybox\nRUN exit 7\n", "The command '/bin/sh -c exit 7' returned a non-zero code: 7"),
        ("FROM busybox\nFOO bar\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("FROM busybox\nCOPY ../x /\n", "forbidden path outside the build context: ../x"),
        ("FROM busybox\nCOPY nothing /\n", "file not found in build context or excluded by .dockerignore"),
        ("FROM busybox\nCOPY a b c\n", "more than one source file, the destination must be a directory"),
        ("FROM busybox\nRUN --mount=type=secret,id=x true\n", "RUN --mount=type=secret needs a client's session"),
        ("FROM busybox\nRUN --mount=type=ssh true\n", "RUN --mount=type=ssh needs a client's session"),
        ("FROM busybox\nRUN --mount=type=what,target=/x true\n", "line 2: unsupported mount type 'what'"),
        ("FROM busybox\nRUN --mount=type=tmpfs true\n", "line 2: target is required"),
        ("FROM busybox\nRUN --mount=type=bind,from=$X,target=/x true\n", "line 2: '$X' from doesn't support variable expansion"),
        ("FROM busybox\nRUN --security=insecure true\n", "RUN --security=insecure is not allowed"),
        ("# syntax=evil/frontend\nFROM busybox\n", "the frontend evil/frontend is not supported"),
        ("FROM busybox\nADD ftp://example.com/x /\n", "file not found in build context"),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "unable to find user nobody-here"),
        ("FROM busybox\nENV\n", "line 2: ENV requires at least one argument"),
        ("FROM busybox\nEXPOSE http\n", "line 2: invalid containerPort: http"),
        ("FROM busybox\nCOPY --from=0 /x /\n", "invalid from flag value 0"),
    ],
)
def test_bad_dockerfiles(build, dockerfile, message):
    done = build(dockerfile, check=False)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_step_leaves_nothing(engine, build):
    before = engine.docker("images", "-aq").stdout
    build("FROM busybox\nRUN echo x > /x && exit 3\n", check=False)
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.docker("images", "-aq").stdout == before


def test_the_context_cannot_lead_out(engine, build, tmp_path):
    os.symlink("/etc/passwd", tmp_path / "link")
    done = build("FROM busybox\nCOPY link /copied\n", check=False)
    assert done.returncode != 0
    assert "file does not exist" in done.stdout + done.stderr
