"""Who may read what an instance keeps: its owner, even where the home itself was made for others to look into."""

import stat

from engine_harness import EngineDaemon


def test_directories_and_databases_are_the_owners(instance):
    instance.home.chmod(0o755)
    for name in ("content", "network"):
        (instance.home / name).mkdir(mode=0o755)  # an older Atoll's
    daemon = EngineDaemon(instance)
    try:
        daemon.start()
        daemon.docker("run", "--rm", "hello-world", check=False)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in instance.home.iterdir()}
        assert {modes[name] for name in ("content", "network", "run", "logs")} == {0o700}
        assert modes["containers"] == 0o710
        databases = [*instance.home.glob("*.db*"), *instance.content.rglob("*.db*")]
        assert {path.name for path in databases if stat.S_IMODE(path.stat().st_mode) & 0o077} == set()
        assert stat.S_IMODE(instance.engine_socket.stat().st_mode) == 0o600
    finally:
        daemon.destroy()
