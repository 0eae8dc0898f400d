import io
import os
import tarfile

from atoll.build.ignore import Ignore
from atoll.cli.context import read_ignore, stream


def members(directory, ignore="", keep=(), extra=None):
    data = b"".join(stream(str(directory), Ignore.parse(ignore), frozenset(keep), extra or {}))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_a_directory_without_what_is_ignored(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.py").write_text("a")
    (tmp_path / "src/keep.log").write_text("k")
    (tmp_path / "src/x.log").write_text("x")
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    os.symlink("/etc/shadow", tmp_path / "link")
    os.link(tmp_path / "src/a.py", tmp_path / "src/b.py")
    found = members(tmp_path, "**/*.log\n!src/keep.log\nDockerfile", keep=["Dockerfile"], extra={"more": b"data"})
    assert sorted(found) == ["Dockerfile", "link", "more", "src", "src/a.py", "src/b.py", "src/keep.log"]
    assert found["link"].issym()
    assert found["link"].linkname == "/etc/shadow"
    assert found["src/b.py"].islnk()
    assert found["src/a.py"].uid == 0


def test_ignored_directories_are_searched_only_for_exceptions(tmp_path):
    (tmp_path / "docs/deep").mkdir(parents=True)
    (tmp_path / "docs/deep/README").write_text("r")
    assert members(tmp_path, "docs") == {}
    assert sorted(members(tmp_path, "docs\n!docs/deep/README")) == ["docs/deep/README"]


def test_the_dockerfiles_own_ignore_file_wins(tmp_path):
    (tmp_path / ".dockerignore").write_text("a")
    assert read_ignore(str(tmp_path), str(tmp_path / "Dockerfile")).excludes("a")
    (tmp_path / "Dockerfile.dockerignore").write_text("b")
    ignore = read_ignore(str(tmp_path), str(tmp_path / "Dockerfile"))
    assert ignore.excludes("b")
    assert not ignore.excludes("a")
