"""Builds through the genuine docker buildx, bake and compose."""

import contextlib
import json
import os
import re
import signal
import tarfile
import time

import pytest

from buildx_harness import context, files_below


def test_a_build_with_its_progress(buildx, tmp_path):
    place = context(
        tmp_path / "c",
        'FROM busybox AS base\nARG WHO\nENV GREETING="hello $WHO"\nWORKDIR /srv\nRUN echo "$GREETING" > greeting\n'
        'FROM base\nCOPY files .\nLABEL a=b\nCMD ["cat", "greeting"]\n',
        {"files/sub/b.txt": "B", "unused": "x" * 100_000},
    )
    told = buildx("build", "-t", "built", "--build-arg", "WHO=buildx", "--label", "c=d", str(place)).stderr
    assert buildx.run("built") == "hello buildx\n"
    assert buildx.run("built", "cat", "sub/b.txt") == "B"
    assert buildx.inspect("built")["Config"]["Labels"] == {"a": "b", "c": "d"}
    for line in ("[base 1/3] FROM docker.io/library/busybox:latest", "[base 2/3] WORKDIR /srv", "[stage-1 1/1] COPY files .", "DONE"):
        assert line in told
    assert "naming to docker.io/library/built:latest" in told
    again = buildx("build", "-t", "built", "--build-arg", "WHO=buildx", "--label", "c=d", str(place)).stderr
    assert len(re.findall(r"^#\d+ CACHED$", again, re.MULTILINE)) == 3
    fresh = buildx("build", "--no-cache", "--build-arg", "WHO=buildx", str(place)).stderr
    assert "CACHED" not in fresh
    filtered = buildx("build", "--no-cache-filter", "base", "--build-arg", "WHO=buildx", str(place)).stderr
    assert "CACHED" not in filtered


def test_docker_build_uses_it(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nRUN echo out; echo err >&2\n")
    told = buildx.docker("build", "-t", "built", str(place), DOCKER_BUILDKIT="1").stderr
    assert "[2/2] RUN echo out; echo err >&2" in told


def test_metadata_goes_to_files(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nENV A=1\n")
    buildx("build", "-t", "one", "-t", "two:tag", "--iidfile", str(tmp_path / "iid"), "--metadata-file", str(tmp_path / "m"), str(place))
    image = buildx.inspect("two:tag")["Id"]
    assert (tmp_path / "iid").read_text() == image
    found = json.loads((tmp_path / "m").read_text())
    assert found["containerimage.config.digest"] == image
    assert found["image.name"] == "docker.io/library/one:latest,docker.io/library/two:tag"
    assert buildx("build", "-q", str(place)).stdout.strip() == image


def test_outputs_to_the_client(buildx, engine, tmp_path):
    place = context(tmp_path / "c", "FROM scratch\nCOPY a /d/a\nCOPY --chmod=750 a /d/b\n", {"a": "content"})
    before = engine.docker("images", "-aq").stdout
    buildx("build", "-o", str(tmp_path / "out"), str(place))
    assert files_below(tmp_path / "out") == {"d/a", "d/b"}
    assert (tmp_path / "out/d/b").read_text() == "content"
    assert (tmp_path / "out/d/b").stat().st_mode & 0o777 == 0o750
    buildx("build", "-o", f"type=tar,dest={tmp_path}/out.tar", str(place))
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == ["d", "d/a", "d/b"]
    buildx("build", "-t", "archived:1", "-o", f"type=docker,dest={tmp_path}/docker.tar", str(place))
    buildx("build", "-o", f"type=oci,dest={tmp_path}/oci.tar", "--metadata-file", str(tmp_path / "m"), str(place))
    found = json.loads((tmp_path / "m").read_text())
    with tarfile.open(tmp_path / "oci.tar") as archive:
        (manifest,) = json.load(archive.extractfile("index.json"))["manifests"]
    assert found["containerimage.descriptor"] == manifest
    assert found["containerimage.digest"] == manifest["digest"] != found["containerimage.config.digest"]
    buildx("build", "-o", "type=cacheonly", str(place))
    assert engine.docker("images", "-aq").stdout == before
    assert "Loaded image: archived:1" in engine.docker("load", "-i", str(tmp_path / "docker.tar")).stdout
    assert "Loaded image" in engine.docker("load", "-i", str(tmp_path / "oci.tar")).stdout
    engine.docker("rmi", "archived:1")


def test_secrets_stay_out_of_everything(buildx, engine, tmp_path):
    (tmp_path / "s").write_text("file-sesame")
    place = context(
        tmp_path / "c",
        "FROM busybox\n"
        "RUN --mount=type=secret,id=env,mode=0440,uid=5 wc -c < /run/secrets/env && stat -c '%a %u' /run/secrets/env\n"
        "RUN --mount=type=secret,id=file,target=/deep/er/s cat /deep/er/s | md5sum\n"
        "RUN --mount=type=secret,id=env,env=TOKEN test -n $TOKEN && ! test -e /run/secrets\n"
        "RUN --mount=type=secret,id=missing ! test -e /run/secrets/missing\n",
    )
    words = ("build", "-t", "built", "--secret", "id=env,env=SECRET", "--secret", f"id=file,src={tmp_path}/s", str(place))
    told = buildx(*words, SECRET="env-sesame").stderr
    assert " 10\n" in told
    assert " 440 5\n" in told
    assert "CACHED" in buildx(*words, SECRET="another").stderr  # no part of a key
    engine.docker("save", "-o", str(tmp_path / "saved.tar"), "built")
    assert b"sesame" not in (tmp_path / "saved.tar").read_bytes()
    assert buildx.run("built", "sh", "-c", "ls -d /deep /run/secrets 2>&1 | grep -c 'No such'") == "2\n"
    home = engine.instance.home
    for top, _, names in os.walk(home):
        for name in names:
            path = os.path.join(top, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    assert b"sesame" not in file.read(), path


def test_a_required_secret_must_be_there(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nRUN --mount=type=secret,id=token,required true\nRUN --mount=type=ssh,required true\n")
    assert "secret token: not found" in buildx("build", str(place), check=False).stderr
    told = buildx("build", "--secret", "id=token,env=T", str(place), check=False, T="x").stderr
    assert 'no SSH key "default" forwarded from the client' in told


def test_contexts_of_many_kinds(buildx, tmp_path):
    other = context(tmp_path / "other", "", {"n.txt": "named", "a.skip": "", ".dockerignore": "*.skip\nDockerfile\n"})
    place = context(
        tmp_path / "c",
        "FROM busybox AS hidden\nRUN exit 1\nFROM replaced\nCOPY --from=other . /o\nCOPY --from=hidden /bin/busybox /copied\n"
        "RUN --mount=from=other,target=/m cat /m/n.txt\n",
    )
    words = ("--build-context", f"other={other}", "--build-context", "replaced=docker-image://busybox")
    buildx("build", "-t", "built", *words, "--build-context", "hidden=docker-image://busybox:latest", str(place))
    assert buildx.run("built", "ls", "-A", "/o") == ".dockerignore\nn.txt\n"
    assert "no stage can begin with it" in buildx("build", "--build-context", f"replaced={other}", str(place), check=False).stderr
    archive = tmp_path / "c.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(context(tmp_path / "in", "FROM busybox\nCOPY . /c\n", {"f": "piped", ".dockerignore": "Dockerfile\n"}), "")
    buildx("build", "-t", "built", "-", given=archive.read_bytes())
    assert buildx.run("built", "ls", "/c") == "f\n"
    assert buildx.run("built", "cat", "/c/f") == "piped"
    buildx("build", "-t", "built", "-", given="FROM busybox\nENV A=alone\n")
    buildx("build", "-t", "built", "-f", "-", str(place), given="FROM busybox\nCOPY . /c\n")
    assert buildx.run("built", "ls", "/c") == "Dockerfile\n"


def test_a_context_in_an_oci_layout(buildx, engine, tmp_path):
    buildx("build", "-o", f"type=oci,name=base:1,dest={tmp_path}/l.tar", "-", given="FROM busybox\nENV A=laid\nRUN echo out > /laid\n")
    layout = tmp_path / "layout"
    with tarfile.open(tmp_path / "l.tar") as archive:
        archive.extractall(layout, filter="data")
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    images = engine.docker("images", "-aq", "--no-trunc").stdout
    place = context(
        tmp_path / "c",
        "FROM base\nCOPY f /f\nRUN echo $A > /a\nFROM busybox\nCOPY --from=base /laid /l\n"
        "RUN --mount=from=base,target=/m cat /m/laid\nCOPY --from=0 /a /f /\n",
        {"f": "file"},
    )
    for address in (f"{layout}:1", f"{layout}@{manifest['digest']}"):
        buildx("prune", "-f", "-a")
        told = buildx("build", "-t", "laid", "--build-context", f"base=oci-layout://{address}", str(place)).stderr
        assert f"FROM oci-layout://base@{manifest['digest']}" in told
        assert buildx.run("laid", "cat", "/l", "/a", "/f") == "out\nlaid\nfile"
        engine.docker("rmi", "laid")
        assert engine.docker("images", "-aq", "--no-trunc").stdout == images
    words = ("build", "--build-context", f"base=oci-layout://{layout}:1", str(place))
    assert len(re.findall(r"^#\d+ CACHED$", buildx(*words).stderr, re.MULTILINE)) == 5
    blob = layout / "blobs" / manifest["digest"].replace(":", "/")
    (layer,) = [one["digest"] for one in json.loads(blob.read_text())["layers"]][-1:]
    (layout / "blobs" / layer.replace(":", "/")).write_bytes(b"spoilt")
    buildx("prune", "-f", "-a")
    done = buildx(*words, check=False)
    assert done.returncode == 1
    assert layer in done.stderr


def test_ignored_files_are_not_sent(buildx, tmp_path):
    place = context(
        tmp_path / "c",
        "FROM busybox\nCOPY . /c\n",
        {".dockerignore": "*\n!keep\n!sub/é\n", "keep": "", "sub/é": "", "sub/x": "", "big": "b" * 10**6},
    )
    told = buildx("build", "-t", "built", str(place)).stderr
    assert buildx.run("built", "find", "/c", "-type", "f") in ("/c/keep\n/c/sub/é\n", "/c/sub/é\n/c/keep\n")
    assert "MB" not in told
    (place / "Dockerfile.dockerignore").write_text("keep\n")
    buildx("build", "-t", "built", str(place))
    assert "sub\n" in buildx.run("built", "ls", "/c")


def test_only_what_the_file_names_is_sent(buildx, tmp_path):
    files = {"a/one.txt": "1", "a/two.md": "2", "b/x": "x", "big": "b" * 10**6}
    place = context(tmp_path / "c", "FROM busybox\nCOPY a/*.txt /w/\nRUN --mount=source=b,target=/b cat /b/x\n", files)
    os.symlink("../big", place / "a/link.txt")
    told = buildx("build", "-t", "built", str(place)).stderr
    assert buildx.run("built", "ls", "/w") == "link.txt\none.txt\n"
    assert buildx.run("built", "sh", "-c", "wc -c < /w/link.txt") == "1000000\n"
    (place / "a/link.txt").unlink()
    assert "transferring context: 1." in told
    told = buildx("build", "-t", "built", str(place)).stderr
    assert re.search(r"transferring context: (\d+B|done)", told)
    buildx("build", "-t", "base", "-", given="FROM busybox\nONBUILD COPY b /triggered\n")
    (place / "Dockerfile").write_text("FROM base\nCOPY a /a\n")
    told = buildx("build", "-t", "built", str(place)).stderr
    assert buildx.run("built", "cat", "/triggered/x") == "x"
    assert "ONBUILD COPY b /triggered" in told
    (place / "Dockerfile").write_text("FROM busybox\nARG A=b\nCOPY $A /v/\n")
    buildx("build", "-t", "built", str(place))
    assert buildx.run("built", "cat", "/v/x") == "x"


def test_all_kinds_of_files_arrive(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nCOPY . /c/\n", {f"many/{number}": str(number) for number in range(300)})
    (place / "empty").touch()
    (place / "dir").mkdir(mode=0o711)
    (place / "big").write_bytes(os.urandom(9 << 20))
    os.symlink("big", place / "link")
    os.symlink("/etc/passwd", place / "out")
    (place / "script").write_text("#!")
    (place / "script").chmod(0o4755)
    os.link(place / "script", place / "hard")
    os.mkfifo(place / "fifo")
    buildx("build", "-t", "built", str(place))
    listing = buildx.run("built", "ls", "-ln", "/c")
    assert re.search(r"^drwx--x--x .* dir$", listing, re.MULTILINE)
    assert re.search(r"^-rwsr-xr-x +2 .* hard$", listing, re.MULTILINE)
    assert re.search(r"^l.* link -> big$", listing, re.MULTILINE)
    assert re.search(r"^l.* out -> /etc/passwd$", listing, re.MULTILINE)
    assert re.search(r"^p.* fifo$", listing, re.MULTILINE)
    assert buildx.run("built", "sh", "-c", "cat /c/many/* | wc -c") == "790\n"
    buildx("build", "-o", str(tmp_path / "out"), str(place))
    assert (tmp_path / "out/c/big").read_bytes() == (place / "big").read_bytes()
    assert os.readlink(tmp_path / "out/c/link") == "big"


@pytest.mark.parametrize(
    ("dockerfile", "message", "marked"),
    [
        (
            "FROM busybox\nRUN echo said \\\n  && exit 7\n",
            'process "/bin/sh -c echo said   && exit 7" did not complete successfully: exit code: 7',
            ["RUN echo said \\", "&& exit 7"],
        ),
        ("FROM busybox\nFOO bar\n", "dockerfile parse error on line 2: unknown instruction: FOO", ["FOO bar"]),
        ("FROM busybox\nENV A=1\nCOPY nothing /\n", "file not found in build context or excluded by .dockerignore", ["COPY nothing /"]),
        ("FROM busybox\nUSER nobody-here\nRUN true\n", "unable to find user nobody-here", ["RUN true"]),
        ("# syntax=evil/frontend\nFROM busybox\n", "the frontend evil/frontend is not supported", []),
    ],
)
def test_errors_point_into_the_file(buildx, tmp_path, dockerfile, message, marked):
    done = buildx("build", str(context(tmp_path / "c", dockerfile)), check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert [line.partition(">>> ")[2].strip() for line in done.stderr.splitlines() if ">>> " in line] == marked


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--target", "nope"), 'target stage "nope" could not be found'),
        (("--platform", "linux/s390x"), "building for linux/s390x is not supported on this machine"),
        (("--platform", "linux/s390x,linux/amd64"), "building for several platforms at once"),
        (("-o", "type=oci,tar=false,dest=x"), "tar=false is not supported"),
        (("--build-arg", "BUILDKIT_SYNTAX=evil/frontend"), "the frontend image evil/frontend is not supported"),
        (("--build-context", "busybox=oci-layout:///nowhere"), "no such file or directory"),
        (("--sbom", "true"), "Attestations are not supported"),
    ],
)
def test_what_is_not_supported_says_so(buildx, tmp_path, flags, message):
    done = buildx("build", *flags, str(context(tmp_path / "c", "FROM busybox\n")), check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_what_steps_run_with(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nRUN ulimit -n; ls /sys/class/net; cat /etc/hosts; df -k /dev/shm | tail -1\n")
    flags = ("--ulimit", "nofile=77:88", "--add-host", "there:10.1.2.3", "--shm-size", "3m", "--network", "none")
    told = buildx("build", *flags, str(place)).stderr
    assert " 77\n" in told
    assert "10.1.2.3\tthere" in told
    assert "eth0" not in told
    assert re.search(r" shm +3072 ", told)


def test_checks_alone(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox AS One\nMAINTAINER me\nRUN exit 1\n")
    done = buildx("build", "--check", str(place), check=False)
    assert done.returncode == 1
    assert "StageNameCasing" in done.stdout
    assert "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/" in done.stdout
    assert "no warnings found" in buildx("build", "--check", "-", given="FROM busybox\n").stdout
    assert "2 warnings found" in buildx("build", str(place), check=False).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_stops_its_build(buildx, engine, tmp_path, number):
    place = context(tmp_path / "c", "FROM busybox\nRUN echo begun; sleep 98\n")
    client = buildx.start("build", str(place))
    try:
        assert client.stderr is not None
        while "begun" not in (line := client.stderr.readline()).replace("echo begun", ""):
            assert line, "the build has ended"
        os.killpg(client.pid, number)
        end = time.monotonic() + 10
        while engine.docker("ps", "-aq").stdout:
            assert time.monotonic() < end, "the step runs on"
            time.sleep(0.05)
    finally:
        client.kill()
        client.communicate()
    assert not list((engine.instance.run / "build").glob("*"))
    assert "begun" in buildx("build", "-", given="FROM busybox\nRUN echo begun\n").stderr


def test_the_cache_as_buildx_shows_it(buildx, tmp_path):
    buildx("build", "-", given="FROM busybox\nRUN echo pruned > /p\n")
    rows = buildx("du").stdout
    assert "RECLAIMABLE" in rows
    assert buildx("prune", "-f").stdout.count("\n") > 1
    assert "Total:\t\t0B" in buildx("du").stdout


def test_the_builder_as_buildx_shows_it(buildx):
    assert re.search(r"default +running +v\d", buildx("ls").stdout)
    shown = buildx("inspect").stdout
    assert re.search(r"^Driver: +docker$", shown, re.MULTILINE)
    assert re.search(r"^Platforms: +linux/", shown, re.MULTILINE)


def test_bake_links_targets(buildx, tmp_path):
    (tmp_path / "bake.hcl").write_text(
        """
        group "default" { targets = ["app", "other"] }
        target "base" { dockerfile-inline = "FROM busybox\\nRUN echo base > /base\\n" }
        target "app" {
          contexts = { b = "target:base" }
          dockerfile-inline = "FROM b\\nCOPY --from=b /base /again\\n"
          tags = ["app"]
        }
        target "other" {
          dockerfile-inline = "FROM busybox\\n"
          tags = ["other"]
        }
        """
    )
    buildx("bake", "-f", "bake.hcl", cwd=tmp_path)
    assert buildx.run("app", "cat", "/again") == "base\n"
    buildx.inspect("other")


def test_compose_builds(buildx, tmp_path):
    context(tmp_path, "", {"n.txt": "file"})
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        "  base:\n    image: compose-base\n    build:\n      dockerfile_inline: |\n        FROM busybox\n        RUN echo service > /s\n"
        "  app:\n    image: compose-app\n    build:\n      context: .\n      args: {A: x}\n      secrets: [token]\n"
        "      additional_contexts:\n        svc: service:base\n        dir: .\n"
        "      dockerfile_inline: |\n        FROM svc\n        ARG A\n        COPY --from=dir n.txt /n\n"
        "        RUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /count; echo $$A > /a\n"
        "secrets:\n  token:\n    environment: TOKEN\n"
    )
    told = buildx.docker("compose", "build", cwd=tmp_path, TOKEN="12345")
    assert "compose-app Built" in told.stdout + told.stderr
    assert buildx.run("compose-app", "cat", "/s", "/n", "/count", "/a") == "service\nfile5\nx\n"


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('ADD ["a b", "/o p/q r"]', "o p/q r"),
        ('ENV D="o p"\nCOPY f /$D/', "o p/f"),
        ('ENV D="a b"\nCOPY $D /o/', "o/a b"),
        ('COPY f /o"p"/', "op/f"),
        ('WORKDIR "/o p"\nCOPY f .', "o p/f"),
        ('ADD "a b" /o/', r'failed to process "\"a": unexpected end of statement while looking for matching double-quote'),
        ("COPY f '/o p/'", 'failed to process "\'/o": unexpected end of statement while looking for matching single-quote'),
        ('ADD <<EOF "/o p/q"\nhi\nEOF', r'failed to process "\"/o": unexpected end of statement'),
        ('COPY <<"a b" /o/\nhi\na b', r'failed to process "<<\"a": unexpected end of statement'),
        ('COPY ["<<EOF", "/o p"]\nhi\nEOF', "dockerfile parse error on line 3: unknown instruction: hi"),
        ("COPY a\\ b /o/", "not found"),
    ],
)
def test_paths_with_spaces(buildx, tmp_path, text, outcome):
    """As BuildKit 0.25: the shell form knows no quoted spaces."""
    place = context(tmp_path / "c", f"FROM scratch\n{text}\n", {"a b": "AB", "f": "F"})
    done = buildx("build", "-o", str(tmp_path / "out"), str(place), check=False)
    if done.returncode:
        assert outcome in done.stderr
    else:
        assert files_below(tmp_path / "out") == {outcome}
