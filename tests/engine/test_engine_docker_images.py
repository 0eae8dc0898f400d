"""The real docker CLI on images and files: import, tag, history, save, load, commit, cp, diff, export."""

import io
import json
import os
import subprocess
import tarfile

import pytest

from image_harness import tar_of


def names(engine):
    return set(engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


def test_tag_history_and_rmi(engine):
    engine.docker("tag", "busybox", "reef/app:1")
    assert {"busybox:latest", "reef/app:1"} <= names(engine)
    assert "Imported from -" in engine.docker("history", "reef/app:1").stdout
    assert engine.docker("rmi", "reef/app:1").stdout == "Untagged: reef/app:1\n"
    assert "No such image: reef/app:1" in engine.docker("rmi", "reef/app:1", check=False).stderr


def test_an_image_in_use_stays(engine):
    engine.docker("create", "--name", "user", "busybox", "true")
    engine.docker("tag", "busybox", "second:1")
    engine.docker("rmi", "second:1")
    done = engine.docker("rmi", "busybox", check=False)
    assert done.returncode == 1
    assert "conflict: unable to remove repository reference" in done.stderr


def test_save_and_load(engine, tmp_path):
    engine.docker("tag", "busybox", "carried:1")
    engine.docker("save", "-o", str(tmp_path / "saved.tar"), "carried:1")
    engine.docker("rmi", "carried:1")
    assert engine.docker("load", "-i", str(tmp_path / "saved.tar")).stdout.endswith("Loaded image: carried:1\n")
    engine.docker("rmi", "carried:1")
    pipe = subprocess.run("docker save busybox | docker load", shell=True, env=engine.environ, capture_output=True, check=True)
    assert b"Loaded image: busybox:latest" in pipe.stdout


def test_save_of_a_repository_without_latest(engine):
    engine.docker("tag", "busybox", "only/tags:1")
    saved = subprocess.run(["docker", "save", "only/tags"], env=engine.environ, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        assert json.load(tar.extractfile("manifest.json"))[0]["RepoTags"] == ["only/tags:1"]
    engine.docker("rmi", "only/tags:1")


def test_another_platform_than_the_image_has(engine, tmp_path):
    own = engine.docker("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "busybox").stdout.strip()
    saved = str(tmp_path / "saved.tar")
    engine.docker("tag", "busybox", "plat:1")
    engine.docker("save", "--platform", own, "-o", saved, "plat:1")
    engine.docker("rmi", "plat:1")
    engine.docker("image", "inspect", "--platform", own, "busybox")
    engine.docker("history", "--platform", own, "busybox")
    for words in (
        ["image", "inspect", "--platform", "linux/s390x", "busybox"],
        ["history", "--platform", "linux/s390x", "busybox"],
        ["save", "--platform", "linux/s390x", "-o", str(tmp_path / "other.tar"), "busybox"],
        ["push", "--platform", "linux/s390x", "busybox"],
        ["load", "--platform", "linux/s390x", "-i", saved],
    ):
        done = engine.docker(*words, check=False)
        assert done.returncode == 1, words
        assert f"does not match the specified platform: wanted linux/s390x, actual: {own}" in done.stderr, words
    assert "plat:1" not in names(engine)
    assert "Loaded image: plat:1" in engine.docker("load", "--platform", own, "-i", saved).stdout
    engine.docker("rmi", "plat:1")


def test_import_says_what_it_is_of(engine):
    root = tar_of(("f", b"x"))
    engine.docker("import", "--platform", "linux/arm/v6", "-", "small:1", input=root)
    assert engine.docker("image", "inspect", "-f", "{{.Os}} {{.Architecture}} {{.Variant}}", "small:1").stdout == "linux arm v6\n"
    engine.docker("rmi", "small:1")
    done = engine.docker("import", "--platform", "windows/amd64", "-", "small:1", input=root, check=False)
    assert "cannot import an image of windows/amd64" in done.stderr


def test_platforms_that_cannot_be_taken_apart(engine, client):
    assert "busybox:latest" in engine.docker("image", "ls", "--tree").stdout
    both = client.api._get(client.api._url("/images/busybox/json"), params={"manifests": "1", "platform": "linux/amd64"})
    assert (both.status_code, both.json()["message"]) == (400, "conflicting options: manifests and platform options cannot both be set")
    two = client.api._get(client.api._url("/images/busybox/get"), params={"platform": ["linux/amd64", "linux/s390x"]})
    assert (two.status_code, two.json()["message"]) == (400, "multiple platform parameters not supported")
    one = client.api._delete(client.api._url("/images/busybox"), params={"platforms": '{"os":"linux","architecture":"amd64"}'})
    assert one.status_code == 501
    assert "busybox:latest" in names(engine)


def test_load_of_what_is_no_image(engine):
    done = engine.docker("load", input=b"this is not a tar at all" * 100, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_commit_holds_the_changes_and_nothing_of_the_engine(engine):
    engine.docker("run", "--name", "worker", "-e", "A=1", "busybox", "sh", "-c", "echo made > /made; rm /bin/wget; mkdir /dir")
    changed = engine.docker("diff", "worker").stdout.splitlines()
    assert changed == ["C /bin", "D /bin/wget", "A /dir", "A /made"]
    engine.docker("commit", "-m", "by hand", "-a", "me", "-c", 'CMD ["cat", "/made"]', "worker", "made:1")
    assert engine.docker("run", "--rm", "made:1").stdout == "made\n"
    config = json.loads(engine.docker("inspect", "-f", "{{json .Config}}", "made:1").stdout)
    assert not [item for item in config["Env"] if "CERT" in item or "PIP" in item]
    assert "A=1" in config["Env"]
    engine.docker("rmi", "-f", "made:1")


def test_the_trusted_bundle_leaves_no_trace(engine):
    engine.docker("run", "--name", "trusting", "busybox", "sh", "-c", 'cat "$SSL_CERT_FILE" > /dev/null; true')
    assert engine.docker("diff", "trusting").stdout == ""


def test_export(engine, tmp_path):
    engine.docker("run", "--name", "out", "busybox", "sh", "-c", "echo new > /new; rm /bin/vi")
    engine.docker("export", "-o", str(tmp_path / "root.tar"), "out")
    with tarfile.open(tmp_path / "root.tar") as tar:
        found = {name.removeprefix("./") for name in tar.getnames()}
        assert tar.extractfile("new").read() == b"new\n"
    assert "bin/busybox" in found
    assert "bin/vi" not in found


@pytest.fixture(params=["running", "stopped"])
def box(request, engine):
    name = f"box-{request.param}"
    if request.param == "running":
        engine.docker("run", "-d", "--name", name, "busybox", "sleep", "60")
    else:
        engine.docker("create", "--name", name, "busybox", "sleep", "60")
    return name


def test_cp_in_and_out(engine, box, tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/leaf").write_text("leaf")
    (tmp_path / "tree/link").symlink_to("deep/leaf")
    engine.docker("cp", str(tmp_path / "file"), f"{box}:/tmp/renamed")
    engine.docker("cp", str(tmp_path / "tree"), f"{box}:/tmp")
    engine.docker("cp", str(tmp_path / "tree") + "/.", f"{box}:/root")
    back = tmp_path / "back"
    back.mkdir()
    engine.docker("cp", f"{box}:/tmp/renamed", str(back / "file"))
    engine.docker("cp", f"{box}:/tmp/tree", str(back))
    engine.docker("cp", f"{box}:/root/.", str(back / "root"))
    assert (back / "file").read_text() == "content"
    assert (back / "tree/deep/leaf").read_text() == "leaf"
    assert os.readlink(back / "tree/link") == "deep/leaf"
    assert (back / "root/deep/leaf").read_text() == "leaf"
    stream = engine.docker("cp", f"{box}:/etc/passwd", "-").stdout
    assert "root:x:0:0" in stream
    engine.docker("cp", f"{box}:/", str(back / "all"))
    assert (back / "all/etc/passwd").exists()


def test_cp_of_what_is_not_there(engine, box, tmp_path):
    done = engine.docker("cp", f"{box}:/nothing", str(tmp_path), check=False)
    assert "Could not find the file /nothing in container" in done.stderr
    (tmp_path / "file").write_text("x")
    done = engine.docker("cp", str(tmp_path / "file"), f"{box}:/nothing/file", check=False)
    assert done.returncode == 1


def test_cp_never_leaves_the_root(engine, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    engine.docker(
        "run",
        "--name",
        "sly",
        "busybox",
        "sh",
        "-c",
        f"ln -s {tmp_path} /way; ln -s ../../../../../../../{secret} /up; mkdir -p {tmp_path}",
    )
    done = engine.docker("cp", "-L", "sly:/way/secret", str(tmp_path / "got"), check=False)
    assert done.returncode == 1
    done = engine.docker("cp", "-L", "sly:/up", str(tmp_path / "got"), check=False)
    assert done.returncode == 1
    (tmp_path / "planted").write_text("x")
    engine.docker("cp", str(tmp_path / "planted"), "sly:/way/planted-inside", check=False)
    assert not (tmp_path / "planted-inside").exists()


def test_a_tar_that_climbs_is_refused(engine, box, client):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("../../../../tmp/atoll-climbed")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    import docker.errors

    with pytest.raises(docker.errors.APIError) as caught:
        client.containers.get(box).put_archive("/tmp", buffer.getvalue())
    assert caught.value.status_code == 400
    assert not os.path.exists("/tmp/atoll-climbed")


def test_cp_reaches_a_volume_of_a_stopped_container(engine, tmp_path):
    (tmp_path / "file").write_text("kept")
    engine.docker("create", "--name", "keeper", "-v", "kept:/keep", "busybox", "cat", "/keep/file")
    engine.docker("cp", str(tmp_path / "file"), "keeper:/keep/file")
    assert engine.docker("start", "-a", "keeper").stdout == "kept"
    engine.docker("rm", "keeper")
    engine.docker("volume", "rm", "kept")


def test_disk_usage_and_prune(engine):
    engine.docker("run", "busybox", "true")
    assert "Images" in engine.docker("system", "df").stdout
    assert "Total reclaimed space" in engine.docker("container", "prune", "-f").stdout
    assert engine.docker("ps", "-aq").stdout == ""
    assert engine.docker("system", "df", "-v").returncode == 0
