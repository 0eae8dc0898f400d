"""The project itself: what pyproject.toml says of it, where its lock is, and its source as the last layer."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from atoll.build.copying import Copy, Piece, copy
from atoll.build.ignore import Ignore
from atoll.build.python import pylock, requirements, uvlock
from atoll.build.python.locks import Locked
from atoll.build.python.target import Target
from atoll.build.python.wheel import Environment
from atoll.build.sources import Source, Tree, directory_tree
from atoll.errors import InvalidInput, NotFound
from atoll.images.extract import Extractor, Policy

PLACE = "/app"
FILE_MAX = 64 << 20  # bytes of a lock
VERSIONS = ("3.14", "3.13", "3.12", "3.11", "3.10")  # of the default base image, the first that the project allows
DEFAULT = "3.13"  # where it does not say
NOT_CODE = Ignore.parse(".git\n.venv\nvenv\n**/__pycache__\n**/*.pyc")


@dataclass(frozen=True, slots=True)
class Project:
    """`name` is "" for a directory with requirements.txt alone."""

    name: str = ""
    version: str = "0"
    requires_python: str = ""
    scripts: Mapping[str, str] = field(default_factory=dict)
    dependencies: Sequence[str] = ()


def read_project(tree: Tree) -> Project:
    """Raises InvalidInput."""
    text = _text(tree, "pyproject.toml")
    if text is None:
        return Project()
    table = _toml(text, "pyproject.toml").get("project") or {}
    name = table.get("name", "")
    if not isinstance(name, str) or "/" in name:
        raise InvalidInput(f"pyproject.toml: {name!r} is no name")
    return Project(
        name,
        str(table.get("version", "0")),
        str(table.get("requires-python", "")),
        dict(table.get("scripts") or {}),
        tuple(table.get("dependencies") or ()),
    )


async def locked(
    tree: Tree, project: Project, target: Target, extras: Sequence[str], indexes: Sequence[str], scratch: Path
) -> list[Locked]:
    """What uv.lock, else pylock.toml, else requirements.txt asks for. Raises InvalidInput, NotFound, Unavailable."""
    if project.name and (text := _text(tree, "uv.lock")) is not None:
        return uvlock.read(_toml(text, "uv.lock"), project.name, target, extras)
    if (text := _text(tree, "pylock.toml")) is not None:
        return pylock.read(_toml(text, "pylock.toml"), target, extras)
    if _text(tree, "requirements.txt") is not None:
        found = requirements.parse("requirements.txt", lambda name: _text(tree, name))
        return await requirements.read(found, target, indexes, scratch)
    if not project.name:
        raise NotFound("the directory has neither a pyproject.toml nor a requirements.txt: it is no Python project")
    if project.dependencies or extras:
        raise NotFound(
            f"{project.name} has dependencies but no lock: make one with `uv lock`, `pip lock -e .` (pylock.toml), or "
            "`uv pip compile pyproject.toml -o requirements.txt`"
        )
    return []


def check_python(project: Project, target: Target, base: str) -> None:
    """Raises InvalidInput."""
    if not _allowed(project, target.markers()["python_full_version"]):
        raise InvalidInput(f"the project requires Python {project.requires_python}, but {base} has {target.version}: choose with --base")


def default_base(tree: Tree, project: Project) -> str:
    """The official image of the Python the project names."""
    stated = (_text(tree, ".python-version") or "").strip()
    if stated and stated.replace(".", "").isdigit():
        return f"python:{stated}-slim"
    if not project.requires_python or _allowed(project, f"{DEFAULT}.0"):
        return f"python:{DEFAULT}-slim"
    fitting = next((version for version in VERSIONS if _allowed(project, f"{version}.99")), None)
    if fitting is None:
        raise InvalidInput(f"no Python fits the project's requires-python {project.requires_python}: name a base image with --base")
    return f"python:{fitting}-slim"


def command(project: Project, given: str | None) -> tuple[dict[str, Any], str]:
    """What the image runs, as fields of its configuration, and in words. Raises InvalidInput."""
    if given:
        try:
            words = shlex.split(given)
        except ValueError as error:
            raise InvalidInput(f"--cmd {given!r} cannot be read: {error}") from None
        return {"Entrypoint": None, "Cmd": words}, given
    scripts = sorted(project.scripts)
    name = project.name if project.name in scripts else scripts[0] if len(scripts) == 1 else None
    if name is not None:
        return {"Entrypoint": [name], "Cmd": None}, name
    if scripts:
        raise InvalidInput(f"[project.scripts] has {', '.join(scripts)}: say with --cmd what the image runs")
    return {"Entrypoint": None, "Cmd": ["python"]}, "python"


def code_layer(tree: Tree, project: Project, python: str, lowers: Sequence[Path], scratch: Path) -> Path:
    """The directory of the layer with the project's files in /app, its scripts, and itself on Python's path. Blocks."""
    everything = Piece(tree, Source("", "", is_directory=True))
    directory = copy(Copy(f"{PLACE}/", leave_out=NOT_CODE.excludes), [everything], None, lowers, scratch)
    with directory_tree(directory, PLACE) as made, Extractor(made.root, Policy(), ()) as extractor:
        environment = Environment(extractor, python)
        _put_on_path(environment, tree, project)
        for name, entry_point in sorted(project.scripts.items()):
            environment.script(name, entry_point, "pyproject.toml")
        extractor.finish()
    return directory


def _put_on_path(environment: Environment, tree: Tree, project: Project) -> None:
    """By a .pth file, as editable installs do; with metadata, so that importlib.metadata knows the project."""
    name = project.name.replace("-", "_").replace(".", "_").lower() or "app"
    source = f"{PLACE}/src" if tree.exists("src") and tree.is_directory("src") else PLACE
    packages = environment.packages
    environment.file(f"{packages}/{name}.pth", f"{source}\n".encode())
    if not project.name:
        return
    info = f"{packages}/{name}-{project.version}.dist-info"
    environment.file(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project.name}\nVersion: {project.version}\n".encode())
    environment.file(f"{info}/INSTALLER", b"atoll\n")
    if project.scripts:
        lines = [f"{script} = {where}\n" for script, where in sorted(project.scripts.items())]
        environment.file(f"{info}/entry_points.txt", "".join(["[console_scripts]\n", *lines]).encode())


def _allowed(project: Project, version: str) -> bool:
    try:
        return SpecifierSet(project.requires_python).contains(version, prereleases=True)
    except InvalidSpecifier:
        raise InvalidInput(f"pyproject.toml: requires-python is {project.requires_python!r}, which is no version specifier") from None


def _text(tree: Tree, name: str) -> str | None:
    try:
        return tree.read(name, FILE_MAX).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not UTF-8") from None
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}") from None


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{name}: {error}") from None
