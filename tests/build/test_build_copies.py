"""COPY and ADD through the real docker CLI: here-documents, flags, links, and where files land."""

import os
import subprocess

import pytest

from atoll.build.modes import read_mode
from atoll.errors import InvalidInput


def run(engine, *words):
    return engine.docker("run", "--rm", "--entrypoint", words[0], "built", *words[1:]).stdout


def tree(engine, top):
    """What lies below TOP: type, mode, owner and path."""
    lines = run(engine, "sh", "-c", f"cd {top} && find . | sort | xargs -n1 stat -c '%A %u:%g %n'").splitlines()
    return [line for line in lines if not line.endswith(" .")]


def test_documents(engine, build):
    build(
        "FROM busybox\nARG WHO=world\n"
        "COPY <<one.txt <<'two.txt' /d/\nhello $WHO \\$WHO\none.txt\nraw $WHO\ntwo.txt\n"
        "COPY --chmod=700 --chown=3:4 <<-EOF /single\n\ttabbed\n\tEOF\n"
        "ADD <<EOF file /mixed/\nbeside a file\nEOF\n",
        files={"file": "x"},
    )
    assert run(engine, "cat", "/d/one.txt", "/d/two.txt") == "hello world $WHO\nraw $WHO\n"
    assert run(engine, "cat", "/single") == "tabbed\n"
    assert run(engine, "stat", "-c", "%u %g %a", "/single") == "3 4 700\n"
    assert run(engine, "cat", "/mixed/EOF", "/mixed/file") == "beside a file\nx"


def test_a_changed_document_is_copied_again(engine, build):
    build("FROM busybox\nCOPY <<EOF /f\none\nEOF\n")
    assert "Using cache" in build("FROM busybox\nCOPY <<EOF /f\none\nEOF\n").stdout
    assert "Using cache" not in build("FROM busybox\nCOPY <<EOF /f\ntwo\nEOF\n").stdout
    assert run(engine, "cat", "/f") == "two\n"


def test_documents_of_run(engine, build):
    build(
        "FROM busybox\nRUN <<EOF cat > /a && cat <<END > /b\nfirst\nEOF\nsecond\nEND\n"
        'RUN <<EOF\n#!/bin/awk -f\nBEGIN { print 6 * 7 > "/answer" }\nEOF\n'
        "RUN echo $((1 << 4)) > /shift\n"
    )
    assert run(engine, "cat", "/a", "/b", "/answer", "/shift") == "first\nsecond\n42\n16\n"


def test_parents_and_exclude(engine, build):
    files = {"a/b/x.txt": "", "a/b/y.md": "", "a/c/x.txt": "", "top.txt": "", "a/b/deep/z.txt": ""}
    build("FROM busybox\nCOPY --parents a/b/x.txt a/./c/ /p/\n", files=files)
    assert [line.split()[-1] for line in tree(engine, "/p")] == ["./a", "./a/b", "./a/b/x.txt", "./c", "./c/x.txt"]
    build("FROM busybox\nCOPY --parents **/*.txt /p/\n")
    paths = [line.split()[-1] for line in tree(engine, "/p")]
    assert [path for path in paths if path.endswith(".txt")] == ["./a/b/deep/z.txt", "./a/b/x.txt", "./a/c/x.txt", "./top.txt"]
    build("FROM busybox\nCOPY --exclude=*.md --exclude=deep a/b /p/\n")
    assert [line.split()[-1] for line in tree(engine, "/p")] == ["./x.txt"]
    build("FROM busybox\nCOPY --exclude=**/*.txt . /p/\n")
    assert not [line for line in tree(engine, "/p") if line.endswith(".txt")]


def test_modes_and_owners(engine, build, tmp_path):
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/tool").write_text("x")
    (tmp_path / "d/tool").chmod(0o700)
    (tmp_path / "d/sub/plain").write_text("x")
    (tmp_path / "d/sub/plain").chmod(0o600)
    build("FROM busybox\nCOPY --chmod=u=rwX,go=rX --chown=user:extra d /d\n")
    assert tree(engine, "/d") == [
        "drwxr-xr-x 1000:2000 ./sub",
        "-rw-r--r-- 1000:2000 ./sub/plain",
        "-rwxr-xr-x 1000:2000 ./tool",
    ]
    build("FROM busybox AS a\nCOPY --chown=5:6 d /d\nFROM busybox\nCOPY --from=a /d /kept\nCOPY --from=a --chown=0 /d /given\n")
    assert "-rwx------ 5:6 ./tool" in tree(engine, "/kept")
    assert "-rwx------ 0:0 ./tool" in tree(engine, "/given")


def test_ways_belong_to_whom_they_are_made_for(engine, build):
    build("FROM busybox\nCOPY --chown=user f /new/way/f\nCOPY --chown=user f /root/into/\n", files={"f": ""})
    assert (
        run(engine, "stat", "-c", "%u %n", "/new", "/new/way", "/root", "/root/into")
        == "1000 /new\n1000 /new/way\n0 /root\n1000 /root/into\n"
    )


def test_ways_are_left_as_they_were(engine, build):
    build("FROM busybox\nCOPY f /root/new/f\nWORKDIR /root/work\nWORKDIR /tmp/x\n", files={"f": ""})
    assert run(engine, "stat", "-c", "%a %n", "/root", "/tmp") == "700 /root\n1777 /tmp\n"


def test_links_of_the_source(engine, build, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_text("f")
    os.symlink("real", tmp_path / "dir")
    os.symlink("real/f", tmp_path / "file")
    os.symlink("nowhere", tmp_path / "real/dangling")
    os.link(tmp_path / "real/f", tmp_path / "real/g")
    build("FROM busybox\nCOPY dir /a\nCOPY file /b/\nCOPY real /c/\n")
    assert run(engine, "readlink", "/a/dangling") == "nowhere\n"
    assert run(engine, "ls", "-l", "/b").splitlines()[1].startswith("-rw")
    assert run(engine, "cat", "/b/file") == "f"
    inodes = run(engine, "stat", "-c", "%i", "/c/f", "/c/g").split()
    assert inodes[0] == inodes[1]


def test_names_beyond_ascii(engine, build):
    build('FROM busybox\nCOPY ["ä ö", "/ü/"]\nCOPY [x]y /\n', files={"ä ö": "1", "xy": "2"})
    assert run(engine, "cat", "/ü/ä ö", "/xy") == "12"


def test_archives_of_other_owners(engine, build, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/f").write_text("f")
    subprocess.run(["tar", "-cJf", tmp_path / "a.txz", "--owner=7", "--group=8", "-C", tmp_path / "in", "f"], check=True)
    (tmp_path / "plain.gz").write_bytes(b"\x1f\x8b broken")
    build("FROM busybox\nADD a.txz /own/\nADD --chown=9 a.txz /given/\nADD --unpack=false a.txz /whole/\nADD plain.gz /plain/\n")
    assert tree(engine, "/own") == ["-rw-r--r-- 7:8 ./f"]
    assert tree(engine, "/given") == ["-rw-r--r-- 9:9 ./f"]
    assert run(engine, "ls", "/whole", "/plain") == "/plain:\nplain.gz\n\n/whole:\na.txz\n"


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "result"),
    [
        ("644", 0o777, False, 0o644),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o700, True, 0o755),
        ("+x", 0o644, False, 0o755),
        ("go-w", 0o666, False, 0o644),
        ("a=", 0o7777, False, 0o000),
        ("g=u", 0o750, False, 0o770),
        ("u+s,+t", 0o755, False, 0o5755),
        ("u=rw,u+x-w", 0o000, False, 0o500),
    ],
)
def test_mode_changes(text, mode, is_directory, result):
    assert oct(read_mode(text)(mode, is_directory)) == oct(result)


@pytest.mark.parametrize("text", ["", "8", "77777", "u", "z=r", "u=rwq", "u=rw,", "-1"])
def test_refused_modes(text):
    with pytest.raises(InvalidInput):
        read_mode(text)
