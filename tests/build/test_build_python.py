"""`atoll build --python`: locks, wheels, layers, and what each mistake is answered."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from atoll.build.python import locks, pylock, requirements, uvlock
from atoll.build.python.locks import File, Locked
from atoll.build.python.target import Target
from atoll.errors import InvalidInput
from engine_harness import EngineDaemon
from python_base import has_python, look_alike_tar, python_tar

TARGET = Target("/usr/local/bin/python3.12", "3.12.4", "glibc", (2, 36), "x86_64")
MUSL = Target("/usr/local/bin/python3.12", "3.12.4", "musl", (1, 2), "x86_64")


# locks -------------------------------------------------------------------------------------------------------------------------------
def wheel_names(*names: str) -> Locked:
    return Locked("thing", "1.0", tuple(File(f"thing-1.0-{name}.whl", f"http://x/{name}") for name in names))


@pytest.mark.parametrize(
    ("target", "names", "best"),
    [
        (TARGET, ("py3-none-any", "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64"), 1),
        (TARGET, ("cp312-cp312-musllinux_1_2_x86_64", "cp39-abi3-manylinux_2_28_x86_64"), 1),
        (TARGET, ("cp312-cp312-manylinux_2_40_x86_64", "py2.py3-none-any", "cp313-cp313-manylinux1_x86_64"), 1),
        (MUSL, ("cp312-cp312-manylinux_2_17_x86_64", "cp312-cp312-musllinux_1_1_x86_64"), 1),
    ],
)
def test_the_best_wheel(target: Target, names: tuple[str, ...], best: int):
    (wheel,) = locks.choose([wheel_names(*names)], target)
    assert wheel.file.url == f"http://x/{names[best]}"


def test_no_wheel_names_what_there_is():
    with pytest.raises(InvalidInput, match=r"no wheel for CPython 3.12 on linux x86_64 with glibc 2.36: there is thing-1.0-cp311"):
        locks.choose([wheel_names("cp311-cp311-win_amd64", "cp312-cp312-macosx_11_0_arm64")], TARGET)
    with pytest.raises(InvalidInput, match="there is a git checkout"):
        locks.choose([Locked("thing", "1.0", (), "a git checkout")], TARGET)


def uv_package(name: str, *needs: dict[str, Any], **more: Any) -> dict[str, Any]:
    wheel = {"url": f"http://x/{name}-1-py3-none-any.whl", "hash": "sha256:" + "0" * 64, "size": 5}
    return {"name": name, "version": "1", "source": {"registry": "x"}, "dependencies": list(needs), "wheels": [wheel], **more}


def test_uv_lock_is_walked_from_the_project():
    document = {
        "version": 1,
        "package": [
            uv_package(
                "app", {"name": "a"}, {"name": "w", "marker": "sys_platform == 'win32'"}, source={"editable": "."},
                **{"optional-dependencies": {"fast": [{"name": "f"}]}, "dev-dependencies": {"dev": [{"name": "d"}]}},
            ),
            uv_package("a", {"name": "b", "extra": ["x"]}),
            uv_package("b", {"name": "a"}, **{"optional-dependencies": {"x": [{"name": "c", "marker": "python_version >= '3.12'"}]}}),
            uv_package("c"), uv_package("d"), uv_package("f"), uv_package("w"),
        ],
    }  # fmt: skip
    assert [one.name for one in uvlock.read(document, "App", TARGET, [])] == ["a", "b", "c"]
    assert [one.name for one in uvlock.read(document, "app", TARGET, ["fast"])] == ["a", "f", "b", "c"]
    with pytest.raises(InvalidInput, match="no extra slow"):
        uvlock.read(document, "app", TARGET, ["slow"])
    with pytest.raises(InvalidInput, match="does not know the project other: run `uv lock`"):
        uvlock.read(document, "other", TARGET, [])


def test_pylock_markers_and_environments():
    wheel = {"name": "a-1-py3-none-any.whl", "url": "http://x/a", "hashes": {"sha256": "0" * 64}}
    document = {
        "lock-version": "1.0",
        "extras": ["fast"],
        "packages": [
            {"name": "a", "version": "1", "wheels": [wheel]},
            {"name": "f", "version": "1", "wheels": [wheel], "marker": "'fast' in extras"},
            {"name": "w", "version": "1", "wheels": [wheel], "marker": "sys_platform == 'win32'"},
            {"name": "me", "directory": {"path": "."}},
        ],
    }
    assert [one.name for one in pylock.read(document, TARGET, [])] == ["a"]
    assert [one.name for one in pylock.read(document, TARGET, ["fast"])] == ["a", "f"]
    for change, message in (
        ({"lock-version": "2.0"}, "lock-version 2.0"),
        ({"requires-python": ">=3.13"}, "requires Python >=3.13, but the base image has 3.12.4"),
        ({"environments": ["sys_platform == 'darwin'"]}, "was not made for CPython 3.12"),
    ):
        with pytest.raises(InvalidInput, match=message):
            pylock.read({**document, **change}, TARGET, [])


def test_requirements_pin_everything():
    files = {
        "requirements.txt": "# by hand\n-r more/base.txt\nA==1.0 \\\n  --hash=sha256:aa --hash=sha256:bb # why\n-i http://index\n-e .\n",
        "more/base.txt": "b == 2 ; python_version < '3'\nc @ http://x/c-1-py3-none-any.whl#sha256=cc\n",
    }
    found = requirements.parse("requirements.txt", files.get)
    assert [(pin.requirement.name, pin.version, set(pin.hashes)) for pin in found.pins] == [
        ("b", "2", set()),
        ("c", "", set()),
        ("A", "1.0", {"aa", "bb"}),
    ]
    assert found.indexes == ["http://index"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a>=1", r"line 1: a>=1 does not pin a version.*uv lock"),
        ("a", "does not pin"),
        ("a==1.*", "does not pin"),
        ("a b", "is no requirement"),
        ("-e ./other", "only the project itself"),
        ("--find-links x", "option --find-links is not supported"),
        ("a==1 --hash=md5:aa", "no sha256"),
        ("-r missing.txt", "missing.txt is not there"),
    ],
)
def test_requirements_that_are_no_lock(line: str, message: str):
    with pytest.raises(InvalidInput, match=message):
        requirements.parse("requirements.txt", {"requirements.txt": line}.get)


def atoll(engine: EngineDaemon, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "ATOLL_HOME": str(engine.instance.home)}
    done = subprocess.run([sys.executable, "-m", "atoll", *words], env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert not check or not done.returncode, done.stdout + done.stderr
    return done


# builds ------------------------------------------------------------------------------------------------------------------------------
def make_wheel(directory: Path, name: str, files: dict[str, str], tag: str = "py3-none-any", **metadata: str) -> Path:
    info = f"{name}-1.0.dist-info"
    content = {**files, f"{info}/METADATA": f"Name: {name}\nVersion: 1.0\n", f"{info}/WHEEL": "Wheel-Version: 1.0\n"}
    content |= {f"{info}/{key}": text for key, text in metadata.items()}
    content[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in content)
    path = directory / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in content.items():
            archive.writestr(member, text)
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A package index on loopback (PEP 503) with what tests put into it."""
    root = tmp_path_factory.mktemp("index")
    wheels = root / "files"
    wheels.mkdir()
    make_wheel(
        wheels,
        "tool",
        {"tool.py": "def main():\n    print('tool runs')\n", "tool-1.0.data/scripts/raw": "#!python\nprint('raw runs')\n"},
        **{"entry_points.txt": "[console_scripts]\ntool = tool:main\n"},
    )
    make_wheel(wheels, "lib", {"lib/__init__.py": "answer = 42\n"})
    make_wheel(wheels, "windows", {"windows.py": ""}, tag="cp312-cp312-win_amd64")
    make_wheel(wheels, "climber", {"../../../../../etc/cron.d/x": "boo"})
    for wheel in wheels.iterdir():
        page = root / "simple" / wheel.name.partition("-")[0]
        page.mkdir(parents=True)
        (page / "index.html").write_text(f'<a href="../../files/{wheel.name}#sha256={digest(wheel)}">{wheel.name}</a>')
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/simple", wheels
        server.shutdown()
        thread.join()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def base(engine: EngineDaemon, tmp_path_factory: pytest.TempPathFactory) -> str:
    archive = tmp_path_factory.mktemp("base") / "base.tar"
    archive.write_bytes(python_tar() if has_python() else look_alike_tar())
    atoll(engine, "import", str(archive), "localhost/python")
    return "localhost/python"


def project(tmp_path: Path, lock: str = "tool==1.0\nlib==1.0\n", name: str = "my-app") -> Path:
    place = tmp_path / "project"
    (place / "src/my_app").mkdir(parents=True)
    (place / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "3.2"\ndependencies = ["tool"]\n[project.scripts]\nmy-app = "my_app:main"\n'
    )
    (place / "src/my_app/__init__.py").write_text("import lib\ndef main():\n    print('answer', lib.answer)\n")
    (place / "requirements.txt").write_text(lock)
    return place


def test_build_and_rebuild(engine: EngineDaemon, base: str, index: tuple[str, Path], tmp_path: Path):
    place = project(tmp_path)
    words = ("build", "--python", "--base", base, "--index-url", index[0], "-t", "app", str(place))
    first = atoll(engine, *words).stdout
    assert "lib 1.0" in first
    assert "my-app in /app" in first
    assert "cached" not in first
    assert atoll(engine, *words).stdout.count("cached") == 4
    (place / "src/my_app/__init__.py").write_text("import lib\ndef main():\n    print('other', lib.answer)\n")
    begun = time.monotonic()
    told = atoll(engine, *words).stdout
    assert time.monotonic() - begun < 3  # 0.15 s on a quiet machine
    assert told.count("cached") == 3
    config = json.loads(atoll(engine, "image", "inspect", "app").stdout)[0]["Config"]
    assert config["Entrypoint"] == ["my-app"]
    assert config["WorkingDir"] == "/app"
    assert "VIRTUAL_ENV=/opt/venv" in config["Env"]
    if has_python():
        run = partial(atoll, engine, "run", "--rm", "--network", "none")
        assert run("app").stdout == "other 42\n"
        assert run("--entrypoint", "tool", "app").stdout == "tool runs\n"
        assert run("--entrypoint", "raw", "app").stdout == "raw runs\n"
        code = "import importlib.metadata as m; print(m.version('my-app'), [str(f) for f in m.files('tool')][0])"
        assert run("--entrypoint", "python", "app", "-c", code).stdout == "3.2 ../../../bin/raw\n"


def test_a_wheels_layer_is_the_same_in_every_image(engine: EngineDaemon, base: str, index: tuple[str, Path], tmp_path: Path):
    def layers(name: str, lock: str, image: str) -> list[str]:
        place = project(tmp_path / name, lock)
        atoll(engine, "build", "-q", "--python", "--base", image, "--index-url", index[0], "-t", name, "--cmd", "python", str(place))
        return json.loads(atoll(engine, "image", "inspect", name).stdout)[0]["RootFS"]["Layers"]

    (tmp_path / "base.tar").write_bytes(look_alike_tar("usr/bin/python3.11"))
    atoll(engine, "import", str(tmp_path / "base.tar"), "localhost/other")
    one, two = layers("one", "lib==1.0", base), layers("two", "tool==1.0\nlib==1.0", "localhost/other")
    if has_python():
        assert one[2] == two[2]  # lib's, on another base
    assert len(set(two) - set(one)) == len(two) - (2 if has_python() else 0)


@pytest.mark.parametrize(
    ("files", "flags", "message"),
    [
        ({}, (), "neither a pyproject.toml nor a requirements.txt"),
        ({"pyproject.toml": '[project]\nname = "x"\ndependencies = ["a"]\n'}, (), "has dependencies but no lock: make one with `uv lock`"),
        ({"pyproject.toml": "[project\n"}, (), "pyproject.toml: "),
        ({"requirements.txt": "windows==1.0"}, (), "windows 1.0 has no wheel for CPython"),
        ({"requirements.txt": "nowhere==1.0"}, (), "no package index has nowhere"),
        ({"requirements.txt": "climber==1.0"}, (), "climbs out"),
        ({"requirements.txt": "lib==1.0 --hash=sha256:" + "0" * 64}, (), "has a hash that the requirements name"),
        ({"requirements.txt": ""}, ("--base", "busybox"), "base image busybox has no Python"),
        ({"pyproject.toml": '[project]\nname = "x"\nrequires-python = ">=3.99"\n'}, (), "requires Python >=3.99"),
        ({"pyproject.toml": '[project]\nname = "x"\nscripts = {a = "a:a", b = "b:b"}\n'}, (), "say with --cmd"),
        ({"pyproject.toml": '[project]\nname = "x"\nscripts = {a = "nonsense"}\n'}, (), "names no function"),
        ({"requirements.txt": ""}, ("--cmd", "'"), "cannot be read"),
        ({"requirements.txt": ""}, ("-f", "Dockerfile"), "takes no Dockerfile's options"),
    ],
)
def test_mistakes(
    engine: EngineDaemon, base: str, index: tuple[str, Path], tmp_path: Path, files: dict[str, str], flags: tuple[str, ...], message: str
):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    chosen = () if "--base" in flags else ("--base", base)
    done = atoll(engine, "build", "--python", "--index-url", index[0], *chosen, *flags, str(tmp_path), check=False)
    assert done.returncode
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wheel_that_is_not_what_the_lock_says(engine: EngineDaemon, base: str, index: tuple[str, Path], tmp_path: Path):
    url = f"{index[0].removesuffix('/simple')}/files/lib-1.0-py3-none-any.whl"
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "lib"\nversion = "1.0"\n'
        f'[[packages.wheels]]\nname = "lib-1.0-py3-none-any.whl"\nurl = "{url}"\nhashes = {{sha256 = "{"1" * 64}"}}\n'
    )
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\n')
    done = atoll(engine, "build", "--python", "--base", base, str(tmp_path), check=False)
    assert "lib 1.0: digest mismatch" in done.stderr
