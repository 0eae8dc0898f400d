"""What services keep and are given: volumes, secrets, configs, environments."""

import pytest


@pytest.fixture
def kept(project, engine):
    engine.docker("volume", "create", "corpus-outside")
    made = project("volumes")
    yield made
    made.down()
    engine.docker("volume", "rm", "corpus-outside")  # external: `down -v` leaves it


def test_volumes_of_every_kind(kept, engine):
    kept.up("writer", "reader", "twin")
    size = "df -k {} | awk 'END{{print $2}}'"
    written = kept.exec(
        "writer", f"cat /files/note; echo mine > /scratch/x; touch /files/x 2>/dev/null || echo refused; {size.format('/scratch')}"
    )
    assert written == "from the host\nrefused\n2048\n"
    assert (kept.directory / "made").is_dir()
    kept.exec("writer", "echo home > /home/x; echo kept > /outside/x", "-u", "root")
    assert kept.exec("reader", "cat /mnt/home/x; touch /mnt/home/y 2>/dev/null || echo refused") == "home\nrefused\n"
    assert kept.exec("reader", f"cat /leaf/colour; ls -A /empty; {size.format('/memory')}") == "green\n1024\n"
    assert kept.exec("twin", "cat /outside/x /files/note") == "kept\nfrom the host\n"
    before = kept.everything()
    kept.run("up", "-d", "writer", "twin")
    assert kept.everything() == before
    in_use = engine.docker("volume", "rm", "volumes-home", check=False)
    assert "volume is in use" in in_use.stderr
    assert engine.docker("volume", "ls", "-q", "--filter", "label=atoll.kind=home").stdout == "volumes-home\n"


def test_what_down_takes(kept, engine):
    kept.up("writer")
    kept("down", "-t", "0")
    volumes = set(engine.docker("volume", "ls", "-q").stdout.split())
    assert {"volumes-home", "corpus-outside"} <= volumes
    kept("down", "-v", "-t", "0")
    left = set(engine.docker("volume", "ls", "-q").stdout.split())
    assert left == volumes - {"volumes-home", "volumes_memory", "volumes_tree", "volumes_empty"}


def test_an_anonymous_volume_follows_the_service(kept):
    kept.up("writer")
    kept.exec("writer", "echo stays > /anonymous/x", "-u", "root")
    kept.up("--force-recreate", "writer")
    assert kept.exec("writer", "cat /anonymous/x") == "stays\n"
    kept.up("--force-recreate", "-V", "writer")
    assert kept.exec("writer", "ls -A /anonymous") == ""


def test_an_external_volume_must_be_there(project):
    done = project("volumes").run("up", "-d", "writer", check=False)
    assert done.returncode == 1
    assert 'external volume "corpus-outside" not found' in done.stderr


def test_secrets_and_configs(project):
    app = project("secrets_configs", CORPUS_TOKEN="t0ken", CORPUS_REGION="lagoon")
    app.up()
    assert app.exec("app", "cat /run/secrets/password /etc/app/token") == "coral\nt0ken"
    assert app.exec("app", "cat /etc/app/settings.ini /banner /region") == "[app]\ndepth = 3\nWelcome to secrets_configs\nlagoon"
    assert app.exec("app", "stat -c '%u:%g %a' /banner") == "1000:1000 440\n"
    assert app.exec("app", "touch /run/secrets/password 2>/dev/null || echo refused") == "refused\n"


def test_environment_user_and_directory(project):
    app = project("env_files", CORPUS_SHELL="from the shell")
    app.up()
    assert app("logs", "--no-log-prefix", "app").splitlines() == [
        "CORPUS_BOTH=second one",
        "CORPUS_DEFAULT=fallback",
        "CORPUS_DOLLAR=$HOME",
        "CORPUS_DOTENV=from the file",
        "CORPUS_FIRST=1",
        "CORPUS_RAW=1x",
        "CORPUS_SHELL=from the shell",
        "CORPUS_WHERE=service",
    ]
    assert app.exec("app", "pwd; id -un") == "/home\nuser\n"


def test_extends_include_and_logging(project):
    app = project("extends_include")
    app.up()
    assert app("logs", "--no-log-prefix", "app") == "app debug\n"
    assert app.exec("second", "cat /seen/which; echo $ROLE") == "shared\nsecond\n"
    assert app.inspect("logger")["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "2", "max-size": "1m"}}
    assert app.inspect("app")["Config"]["Labels"]["atoll.team"] == "override"
