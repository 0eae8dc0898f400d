"""What the command writes for others to read: shell settings, docker's configuration."""

import json
import os
import shutil
import subprocess

import pytest

from atoll.cli.verbs import registry
from engine_harness import ATOLL

ODD = 'it\'s "a" $HOME `id` \\ home'


@pytest.mark.parametrize("shell", ["bash", "sh", "zsh", "fish"])
def test_settings_are_one_word_each_whatever_the_home_is_called(tmp_path, shell):
    home = tmp_path / ODD
    environ = {**os.environ, "ATOLL_HOME": str(home)}
    done = subprocess.run([ATOLL, "env", "--shell", shell], env=environ, capture_output=True, text=True, timeout=20, check=True)
    if shutil.which(shell) is None:
        return
    ask = 'printf "%s\\n" "$KUBECONFIG"; printf "%s\\n" "$PATH"' if shell != "fish" else "echo $KUBECONFIG; string join : $PATH"
    seen = subprocess.run([shell, "-c", f"{done.stdout}\n{ask}"], env=environ, capture_output=True, text=True, timeout=20, check=True)
    kubeconfig, path = seen.stdout.splitlines()
    assert kubeconfig == f"{home}/cluster/kubeconfig"
    assert path.startswith(f"{home}/bin:")
    environ["PATH"] = path
    undo = subprocess.run([ATOLL, "env", "--unset", "--shell", shell], env=environ, capture_output=True, text=True, timeout=20, check=True)
    assert str(home) not in undo.stdout


def test_a_linked_configuration_stays_a_link(tmp_path, monkeypatch):
    real = tmp_path / "dotfiles" / "docker.json"
    real.parent.mkdir()
    real.write_text('{"auths": {}, "other": 1}')
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").symlink_to(real)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    registry.write_config({**registry.read_config(), "auths": {"r": {"auth": "x"}}})
    assert (tmp_path / "docker" / "config.json").is_symlink()
    assert json.loads(real.read_text()) == {"auths": {"r": {"auth": "x"}}, "other": 1}
    assert real.stat().st_mode & 0o777 == 0o600
