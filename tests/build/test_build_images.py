"""What a build leaves: ids, history, configuration, the time; and that the same input gives the same image."""

import contextlib
import json
import os
import re

import pytest


def inspect(engine, name="built"):
    return json.loads(engine.docker("inspect", name).stdout)[0]


def history(engine):
    lines = engine.docker("history", "--no-trunc", "--format", "{{json .}}", "built").stdout.splitlines()
    return [json.loads(line) for line in lines][::-1]


ALL = """\
FROM scratch AS base
COPY --from=busybox / /
FROM base
MAINTAINER Someone <s@example.com>
ARG WHO=me
ENV A=1 B="two words"
LABEL x="$A"
EXPOSE 80/tcp 90-91
VOLUME /data /more
WORKDIR /srv
COPY file /srv/
RUN true
USER 5:6
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN echo x
ENTRYPOINT echo $A
CMD ["a", "b"]
"""


def test_history_in_the_classic_builders_words(engine, build):
    build(ALL, files={"file": "x"})
    told = [row["CreatedBy"] for row in history(engine)]
    assert re.fullmatch(r"/bin/sh -c #\(nop\) COPY dir:[0-9a-f]{64} in / ", told[0])
    assert re.fullmatch(r"/bin/sh -c #\(nop\) COPY file:[0-9a-f]{64} in /srv/ ", told[8])
    nop = "/bin/sh -c #(nop)"
    assert told[1:8] == [
        f"{nop}  MAINTAINER Someone <s@example.com>",
        f"{nop}  ARG WHO=me",
        f"{nop}  ENV A=1 B=two words",
        f"{nop}  LABEL x=1",
        f"{nop}  EXPOSE 80/tcp 90-91",
        f"{nop}  VOLUME [/data /more]",
        f"{nop} WORKDIR /srv",
    ]
    assert told[9:] == [
        "|1 WHO=me /bin/sh -c true",
        f"{nop}  USER 5:6",
        f"{nop}  STOPSIGNAL SIGINT",
        f"{nop}  HEALTHCHECK --interval=5s CMD true",
        f"{nop}  SHELL [/bin/sh -ec]",
        "/bin/sh -ec #(nop)  ONBUILD RUN echo x",
        '/bin/sh -ec #(nop)  ENTRYPOINT ["/bin/sh", "-ec", "echo $A"]',
        '/bin/sh -ec #(nop)  CMD ["a", "b"]',
    ]
    assert inspect(engine)["Author"] == "Someone <s@example.com>"


def test_configuration(engine, build):
    build(ALL, files={"file": "x"})
    config = inspect(engine)["Config"]
    assert {name: value for name, value in config.items() if value} == {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B=two words"],
        "Labels": {"x": "1"},
        "ExposedPorts": {"80/tcp": {}, "90/tcp": {}, "91/tcp": {}},
        "Volumes": {"/data": {}, "/more": {}},
        "WorkingDir": "/srv",
        "User": "5:6",
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000},
        "Shell": ["/bin/sh", "-ec"],
        "OnBuild": ["RUN echo x"],
        "Entrypoint": ["/bin/sh", "-ec", "echo $A"],
        "Cmd": ["a", "b"],
    }


def test_the_last_id_is_the_images(engine, build):
    out = build(ALL, "--label", "more=1", files={"file": "x"}).stdout
    shown = re.findall(r"^ ---> ([0-9a-f]{12})$", out, re.MULTILINE)
    assert inspect(engine)["Id"].startswith(f"sha256:{shown[-1]}")
    assert f"Successfully built {shown[-1]}" in out
    assert build("FROM busybox\n").stdout.count(inspect(engine, "busybox")["Id"][7:19]) == 2


def test_quiet_says_the_id_alone(engine, build):
    assert build("FROM busybox\nRUN echo loud\n", "-q").stdout == f"{inspect(engine)['Id']}\n"
    failing = build("FROM busybox\nRUN exit 3\n", "-q", check=False)
    assert "returned a non-zero code: 3" in failing.stderr


def test_only_the_image_is_left(engine, build):
    engine.docker("image", "prune", "-f")
    before = set(engine.docker("images", "-aq").stdout.split())
    build("FROM busybox AS a\nRUN echo a > /a\nRUN echo b > /b\nFROM busybox\nCOPY --from=a /a /\n")
    after = set(engine.docker("images", "-aq").stdout.split())
    assert len(after - before) <= 1
    assert engine.docker("ps", "-aq").stdout == ""


def test_the_disk_comes_back(engine, build):
    build("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=5\n")
    engine.docker("rmi", "built")
    assert int(re.search(r"Total reclaimed space: ([\d.]+)MB|reclaimed space:\s+([\d.]+)MB", prune(engine))[1].split(".")[0]) >= 5
    names = [path.name for path in (engine.instance.content / "tmp").iterdir()]
    assert names == []


def prune(engine):
    return engine.docker("builder", "prune", "-af").stdout


@pytest.mark.parametrize("flags", [(), ("--no-cache",)])
def test_reproducible_with_source_date_epoch(engine, build, tmp_path, flags):
    text = "FROM busybox\nRUN echo x > /x && mkdir /d\nCOPY file /d/\nWORKDIR /made\nENV A=1\n"
    ids = set()
    for time in (1_700_000_000, 1_750_000_000):
        (tmp_path / "file").write_text("same")
        os.utime(tmp_path / "file", (time, time))
        build(text, "--build-arg", "SOURCE_DATE_EPOCH=1600000000", *flags)
        ids.add(inspect(engine)["Id"])
    assert len(ids) == 1
    assert inspect(engine)["Created"].startswith("2020-09-13T12:26:40")
    shown = engine.docker("run", "--rm", "built", "stat", "-c", "%Y", "/x", "/d", "/d/file", "/made").stdout
    assert set(shown.split()) == {"1600000000"}
    done = build(text, "--build-arg", "SOURCE_DATE_EPOCH=now", check=False)
    assert "invalid SOURCE_DATE_EPOCH: now" in done.stderr


def test_epoch_as_a_default_of_the_file(engine, build):
    build("ARG SOURCE_DATE_EPOCH=1500000000\nFROM busybox\nRUN echo epoch > /e\n")
    assert inspect(engine)["Created"].startswith("2017-07-14")


def test_labels_limits_and_target_of_docker_py(engine):
    with contextlib.closing(engine.client()) as client:
        import io

        file = io.BytesIO(b"FROM busybox AS one\nRUN echo $A\nFROM one AS two\nRUN exit 1\n")
        image, log = client.images.build(
            fileobj=file, tag="built", target="one", labels={"l": "1"}, buildargs={"A": "x"}, container_limits={"memory": 64 << 20}, rm=True
        )
        text = "".join(line.get("stream", "") for line in log)
    assert "Step 3/3 : LABEL l=1" in text
    assert image.labels == {"l": "1"}


def test_args_come_along_to_a_child_stage(engine, build):
    build("ARG G=global\nFROM busybox AS a\nARG G\nARG V=v\nFROM a\nRUN echo $G-$V > /out\n")
    assert engine.docker("run", "--rm", "built", "cat", "/out").stdout == "global-v\n"


def test_platforms(build):
    assert "is not supported on this machine" in build("FROM --platform=linux/s390x busybox\n", check=False).stderr
    build("FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH\nRUN test -n $TARGETARCH\n")


def test_triggers(engine, build):
    build("FROM busybox\nONBUILD COPY --from=helper /h /h\nONBUILD RUN <<EOF\necho doc > /doc\nEOF\n")
    engine.docker("tag", "built", "parent")
    done = build("FROM busybox AS helper\nRUN echo h > /h\nFROM parent\nRUN cat /h /doc\n")
    assert "# Executing 2 build triggers" in done.stdout
    assert "\nh\ndoc\n" in done.stdout
    assert "OnBuild" not in inspect(engine)["Config"]


def test_a_stage_called_like_an_image(engine, build):
    build("FROM busybox AS busybox\nRUN echo mine > /mine\nFROM scratch\nCOPY --from=busybox / /\n")
    assert engine.docker("run", "--rm", "built", "/bin/cat", "/mine").stdout == "mine\n"


def test_args_are_no_part_of_the_key_before_their_line(build):
    text = "FROM busybox\nRUN echo first\nARG A\nRUN echo $A\n"
    build(text, "--build-arg", "A=1")
    assert build(text, "--build-arg", "A=2").stdout.count("Using cache") == 2
    proxied = build(text, "--build-arg", "A=1", "--build-arg", "http_proxy=http://127.0.0.1:1")
    assert proxied.stdout.count("Using cache") == 3


def test_words_that_could_be_read_two_ways(engine, build):
    """The key is over what an instruction does, not over how it is told."""
    for env in ('A="1 B=2"', "A=1 B=2"):
        build(f"FROM busybox\nENV {env}\nRUN echo $B > /b\n")
    assert engine.docker("run", "--rm", "built", "cat", "/b").stdout == "2\n"
