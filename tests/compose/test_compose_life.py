"""A project's life from up to down, through every command a day of work takes."""

import json
import re
import subprocess
import urllib.request

import pytest


@pytest.fixture(scope="module")
def _shop(module_project):
    made = module_project("web_db_cache")
    made.up()
    return made


@pytest.fixture
def shop(_shop):
    """All of it running, whatever the test before did."""
    _shop("up", "-d")
    return _shop


def page(shop):
    address = shop("port", "web", "80").strip()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    with urllib.request.urlopen(f"http://{address}/cgi-bin/page", timeout=5) as answer:
        return answer.read().decode()


def test_up_and_what_it_shows(shop):
    rows = shop.containers()
    assert {name: (row["Service"], row["State"], row["Health"]) for name, row in rows.items()} == {
        "web_db_cache-cache-1": ("cache", "running", ""),
        "web_db_cache-db-1": ("db", "running", "healthy"),
        "web_db_cache-web-1": ("web", "running", "healthy"),
    }
    assert rows["web_db_cache-db-1"]["Ports"] == "5432/tcp"
    web = {(port["URL"], port["TargetPort"], port["Protocol"]) for port in rows["web_db_cache-web-1"]["Publishers"]}
    assert web >= {("127.0.0.1", 80, "tcp"), ("0.0.0.0", 9090, "udp")}
    assert shop("port", "--protocol", "udp", "web", "9090").startswith("0.0.0.0:")
    assert re.fullmatch(r"Lagoon read \d+ times\n", page(shop))
    assert json.loads(shop("ls", "--format", "json"))[0]["Status"] == "running(3)"
    assert shop("ps", "--services", "--filter", "status=running").split() == ["cache", "db", "web"]
    assert set(json.loads(shop("images", "--format", "json"))[0]) >= {"ID", "Repository", "Tag", "Size"}
    assert shop("volumes", "-q").split() == ["web_db_cache_data"]
    assert "web_db_cache-web-1" in shop("stats", "--no-stream")


def test_a_second_up_changes_nothing(shop):
    before = shop.everything()
    said = shop.run("up", "-d").stderr
    assert "Container web_db_cache-web-1 Running" in said
    assert not re.search(r"Recreate|Creat|Start", said)
    assert shop.everything() == before


def test_a_changed_service_alone_is_made_anew(shop):
    before = {name: row["ID"] for name, row in shop.containers().items()}
    compose = shop.directory / "compose.yaml"
    original = compose.read_text()
    compose.write_text(original.replace("echo Lagoon", "echo Atoll"))
    said = shop.up()
    compose.write_text(original)
    assert "Container web_db_cache-db-1 Recreated" in said
    after = {name: row["ID"] for name, row in shop.containers().items()}
    assert {name for name in after if after[name] != before[name]} == {"web_db_cache-db-1"}
    assert page(shop).startswith("Atoll")
    assert shop.exec("db", "cat /data/title") == "Atoll\n"  # the volume went along


def test_exec_logs_and_top(shop):
    assert shop.exec("cache", "echo $ONE; pwd; id -u", "-e", "ONE=1", "-w", "/tmp", "-u", "user") == "1\n/tmp\n1000\n"
    assert shop.run("exec", "-T", "db", "sh", "-c", "exit 7", check=False).returncode == 7
    assert shop.run("exec", "-T", "db", "cat", given="through stdin").stdout == "through stdin"
    shop.exec("web", "wget -q -O /dev/null http://127.0.0.1/cgi-bin/page")
    assert "url:/cgi-bin/page" in shop("logs", "--no-log-prefix", "web")
    last = shop("logs", "-t", "--tail", "1", "web")
    assert re.fullmatch(r"web-1  \| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z .*\n", last)
    assert "nc -ll -p 5432 -e cat /data/title" in shop("top", "db")


def test_files_in_and_out(shop):
    (shop.directory / "in").mkdir()
    (shop.directory / "in" / "a").write_text("A")
    shop("cp", "in", "db:/data/")
    assert shop.exec("db", "cat /data/in/a") == "A"
    shop("cp", "db:/data/title", "title")
    assert (shop.directory / "title").read_text() == "Lagoon\n"
    shop("cp", "db:/data/in", "out")
    assert (shop.directory / "out" / "a").read_text() == "A"


def test_pause_restart_kill_and_stop(shop):
    shop("pause", "web")
    assert shop.containers()["web_db_cache-web-1"]["State"] == "paused"
    shop("unpause", "web")
    started = shop.inspect("web")["State"]["StartedAt"]
    shop("restart", "-t", "1", "web")
    assert shop.inspect("web")["State"]["StartedAt"] > started
    shop("kill", "-s", "KILL", "cache")
    assert shop.containers()["web_db_cache-cache-1"]["ExitCode"] == 137
    assert not shop.inspect("cache")["State"]["Running"]
    shop("start", "cache")
    assert shop.inspect("cache")["State"]["Running"]
    shop("stop", "-t", "1")
    assert {row["State"] for row in shop.containers().values()} == {"exited"}
    assert "web_db_cache-db-1" in shop.run("rm", "-f", "db").stderr
    assert set(shop.containers()) == {"web_db_cache-cache-1", "web_db_cache-web-1"}


def test_events_and_wait(shop):
    with subprocess.Popen(
        [*shop.run("version").args[:2], "wait", "cache"], cwd=shop.directory, env=shop.environ, stdout=subprocess.PIPE, text=True
    ) as waiting:
        shop("kill", "-s", "TERM", "cache")
        assert "exited with status code 143" in waiting.communicate(timeout=10)[0]
        assert waiting.returncode == 143
    told = [
        json.loads(line) for line in shop.run("events", "--json", "--since", "1h", "--until", "0s", check=False).stdout.splitlines() if line
    ]
    assert {"create", "start", "kill", "die"} <= {event["action"] for event in told if event["service"] == "cache"}
    assert any(event["action"] == "health_status: healthy" for event in told if event["service"] == "db")


def test_down_takes_all_away_and_volumes_when_asked(shop):
    docker = shop.engine.docker
    shop("down", "-t", "1")
    assert shop.everything() == ["web_db_cache_data"]
    shop("down", "-v")
    assert shop.everything() == []
    assert "web_db_cache" not in docker("network", "ls").stdout
