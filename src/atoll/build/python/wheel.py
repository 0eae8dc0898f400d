"""Wheels as layers: what an installer does with one (PEP 427), written as if into the virtual environment of the image.

The same wheel gives the same bytes everywhere: one time for all files, modes of two kinds, RECORD in order. Bytecode is left to Python.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import posixpath
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from atoll.errors import InvalidInput
from atoll.images.extract import Extractor, clean_name
from atoll.images.tar import Entry, Kind
from atoll.units import NS

PREFIX = "opt/venv"
MTIME_NS = 315_619_200 * NS  # 1980-01-02: what zip files can say, in every time zone
DIRECTORY_MODE = 0o755
FILE_MODE, PROGRAM_MODE = 0o644, 0o755
EXECUTABLE = 0o111
TEXT_MAX = 8 << 20  # bytes of a script or of metadata
PIECE = 1 << 20
SCRIPT_GROUPS = ("console_scripts", "gui_scripts")
ENTRY_POINT = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<name>[\w.]+)\s*(\[.*\])?$")


class Environment:
    """Writes into a layer's directory, through an extractor, below /opt/venv. `python` is the version, "3.12"."""

    def __init__(self, extractor: Extractor, python: str) -> None:
        self._extractor = extractor
        self._directories: set[str] = set()
        self.packages = f"{PREFIX}/lib/python{python}/site-packages"

    def file(self, path: str, data: bytes, mode: int = FILE_MODE) -> None:
        self._write(path, len(data), iter([memoryview(data)]), mode)

    def symlink(self, path: str, target: str) -> None:
        self._parents(path)
        self._extractor.add(Entry(path.encode(), Kind.SYMLINK, 0o777, 0, 0, 0, MTIME_NS, link=target.encode()), iter(()))

    def script(self, name: str, entry_point: str, where: str) -> tuple[str, bytes]:
        """The program of a [project.scripts] entry; its path and content. Raises InvalidInput."""
        match = ENTRY_POINT.match(entry_point)
        if not match or "/" in name or name in ("", ".", ".."):
            raise InvalidInput(f"{where} has a script {name} = {entry_point!r}, which names no function: write module:function")
        top = match["name"].partition(".")[0]
        text = f"#!/{PREFIX}/bin/python\nimport sys\nfrom {match['module']} import {top}\nsys.exit({match['name']}())\n"
        path = f"{PREFIX}/bin/{name}"
        self.file(path, text.encode(), PROGRAM_MODE)
        return path, text.encode()

    def install(self, wheel: Path, shown: str) -> None:
        """Raises InvalidInput for what is no proper wheel."""
        try:
            with zipfile.ZipFile(wheel) as archive:
                _Installation(self, archive, shown).run()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, UnicodeDecodeError, KeyError) as error:
            raise InvalidInput(f"{shown} is no proper wheel: {error}") from error

    def stream(self, path: str, source: IO[bytes], size: int, mode: int) -> None:
        def pieces() -> Iterator[memoryview]:
            while data := source.read(PIECE):
                yield memoryview(data)

        self._write(path, size, pieces(), mode)

    def _write(self, path: str, size: int, data: Iterator[memoryview], mode: int) -> None:
        self._parents(path)
        self._extractor.add(Entry(path.encode(), Kind.FILE, mode, 0, 0, size, MTIME_NS), data)

    def _parents(self, path: str) -> None:
        """Every directory is said, so that a layer does not depend on what lies beneath it."""
        parent = posixpath.dirname(path)
        if parent and parent not in self._directories:
            self._parents(parent)
            self._directories.add(parent)
            self._extractor.add(Entry(parent.encode(), Kind.DIRECTORY, DIRECTORY_MODE, 0, 0, 0, MTIME_NS), iter(()))


class _Installation:
    """One wheel's."""

    def __init__(self, environment: Environment, archive: zipfile.ZipFile, shown: str) -> None:
        self._environment = environment
        self._archive = archive
        self._shown = shown
        names = archive.namelist()
        self._info = next((name.partition("/")[0] for name in names if re.fullmatch(r"[^/]+\.dist-info/WHEEL", name)), "")
        if not self._info:
            raise InvalidInput(f"{shown} is no proper wheel: it has no .dist-info/WHEEL")
        self._data = self._info.removesuffix(".dist-info") + ".data"
        self._hashes = self._stated()
        self._record: list[tuple[str, str, str]] = []

    def run(self) -> None:
        for info in self._archive.infolist():
            if not info.is_dir():
                self._member(info)
        for name, entry_point in self._scripts():
            path, text = self._environment.script(name, entry_point, self._shown)
            self._note(path, _digest(text), len(text))
        self._write(f"{self._info}/INSTALLER", b"atoll\n")
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerows(sorted(self._record))
        rows.writerow((f"{self._info}/RECORD", "", ""))
        self._environment.file(f"{self._environment.packages}/{self._info}/RECORD", out.getvalue().encode())

    def _member(self, info: zipfile.ZipInfo) -> None:
        try:
            name = clean_name(info.filename.encode()).decode()
        except InvalidInput as error:
            raise InvalidInput(f"{self._shown}: {info.filename}: {error}") from None
        if name in (f"{self._info}/RECORD", f"{self._info}/INSTALLER", f"{self._info}/REQUESTED"):
            return
        mode = PROGRAM_MODE if info.external_attr >> 16 & EXECUTABLE else FILE_MODE
        path = f"{self._environment.packages}/{name}"
        if name.startswith(f"{self._data}/"):
            scheme, _, rest = name.removeprefix(f"{self._data}/").partition("/")
            path = self._place(scheme, rest, name)
            if scheme == "scripts":
                text = _with_interpreter(self._read(info))
                self._environment.file(path, text, PROGRAM_MODE)
                self._note(path, _digest(text), len(text))
                return
        with self._archive.open(info) as source:
            self._environment.stream(path, source, info.file_size, mode)
        self._note(path, self._hashes.get(info.filename, ""), info.file_size)

    def _place(self, scheme: str, rest: str, name: str) -> str:
        places = {
            "purelib": self._environment.packages,
            "platlib": self._environment.packages,
            "scripts": f"{PREFIX}/bin",
            "headers": f"{PREFIX}/include",
            "data": PREFIX,
        }
        if scheme not in places or not rest:
            raise InvalidInput(f"{self._shown} has a file of no known scheme: {name}")
        return f"{places[scheme]}/{rest}"

    def _stated(self) -> dict[str, str]:
        text = self._archive.read(f"{self._info}/RECORD").decode()
        return {row[0]: row[1] for row in csv.reader(text.splitlines()) if len(row) > 1}

    def _scripts(self) -> Iterable[tuple[str, str]]:
        try:
            text = self._archive.read(f"{self._info}/entry_points.txt").decode()
        except KeyError:
            return []
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are as they are written
        try:
            parser.read_string(text)
        except configparser.Error as error:
            raise InvalidInput(f"{self._shown} has a broken entry_points.txt: {error}") from None
        return [pair for group in SCRIPT_GROUPS if parser.has_section(group) for pair in parser.items(group)]

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        if info.file_size > TEXT_MAX:
            raise InvalidInput(f"{self._shown}: {info.filename} is too large for a script")
        return self._archive.read(info)

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._environment.packages}/{name}"
        self._environment.file(path, data)
        self._note(path, _digest(data), len(data))

    def _note(self, path: str, digest: str, size: int) -> None:
        self._record.append((posixpath.relpath(path, self._environment.packages), digest, str(size)))


def _with_interpreter(script: bytes) -> bytes:
    """A script that begins with #!python runs the environment's own."""
    first, newline, rest = script.partition(b"\n")
    if first.startswith(b"#!python"):
        return f"#!/{PREFIX}/bin/python".encode() + newline + rest
    return script


def _digest(data: bytes) -> str:
    """As RECORD has it."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
