"""What compose makes of the corpus before it asks the engine for anything."""

import json
import subprocess

import pytest
from compose_harness import CORPUS, names

from engine_harness import ATOLL

# Corpus files name these; a user has them set.
ENVIRON = {"CORPUS_TOKEN": "t0ken", "CORPUS_REGION": "lagoon"}


def config(name, *options):
    done = subprocess.run(
        [ATOLL, "compose", *options, "config", "--format", "json"],
        cwd=CORPUS / name,
        env={"PATH": "/usr/bin:/bin", "HOME": "/root", "ATOLL_HOME": "/nonexistent", "CORPUS_SHELL": "from the shell", **ENVIRON},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", names())
def test_every_project_is_understood(name):
    project = config(name, "--profile", "*")
    assert project["name"] == name
    assert project["services"]


def test_what_wins_in_an_environment():
    assert config("env_files")["services"]["app"]["environment"] == {
        "CORPUS_BOTH": "second one",
        "CORPUS_DEFAULT": "fallback",
        "CORPUS_DOLLAR": "$$HOME",
        "CORPUS_DOTENV": "from the file",
        "CORPUS_FIRST": "1",
        "CORPUS_RAW": "1x",
        "CORPUS_SHELL": "from the shell",
        "CORPUS_WHERE": "service",
    }


def test_extends_include_and_override():
    services = config("extends_include")["services"]
    assert set(services) == {"app", "logger", "second"}
    assert services["app"]["environment"] == {"ROLE": "app", "LEVEL": "debug"}
    assert services["app"]["labels"] == {"atoll.team": "override"}
    assert services["second"]["environment"]["ROLE"] == "second"
    assert services["second"]["labels"]["atoll.second"] == "yes"
    assert services["app"]["volumes"][0]["source"] == str(CORPUS / "extends_include/shared/seen")


def test_profiles_choose_services():
    assert set(config("profiles")["services"]) == {"app"}
    assert set(config("profiles", "--profile", "debug")["services"]) == {"app", "shell"}
