"""An engine in a plain chroot, where the process' root is not the mount namespace's and no mount point either."""

import shutil

import pytest

from engine_harness import EngineDaemon

# A second copy of the machine, bound together in a mount namespace of its own: it ends with the processes in it.
INTO_CHROOT = """
mount --make-rprivate /
for entry in /*; do
  if [ -L "$entry" ]; then cp -P "$entry" "$0$entry"
  elif [ -d "$entry" ]; then mkdir "$0$entry"; mount --rbind "$entry" "$0$entry"
  fi
done
exec chroot "$0" "$@"
"""


@pytest.fixture
def confined(instance):
    root = instance.home / "chroot"
    root.mkdir()
    daemon = EngineDaemon(instance, through=("unshare", "--mount", "sh", "-c", INTO_CHROOT, str(root)))
    try:
        daemon.start()
        daemon.make_busybox()
        yield daemon
    finally:
        daemon.destroy()


def runtimes():
    return ["atoll", *(name for name in ("runc", "crun") if shutil.which(name))]


def test_an_exec_in_a_chroot_enters_the_container_and_not_the_host(confined):
    home = confined.instance.home
    for runtime in runtimes():
        confined.docker("run", "-d", "--runtime", runtime, "--name", runtime, "-v", f"{home}/given:/given", "busybox", "sleep", "1000")
        confined.docker("exec", runtime, "sh", "-c", f"echo seen > /given/{runtime}; test ! -e {home}")
        assert (home / "given" / runtime).read_text() == "seen\n"
        outside = confined.docker("exec", "--privileged", runtime, "cat", "/proc/self/mountinfo").stdout
        assert str(home / "chroot") not in outside
    confined.docker("cp", "atoll:/etc/passwd", str(home / "copied"))
    assert (home / "copied").read_text().startswith("root:")
    for runtime in runtimes():
        confined.docker("rm", "-f", runtime)
