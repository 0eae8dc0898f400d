"""tests/build/corpus: one Dockerfile for each way an instruction can be written, a context they share, and what BuildKit makes of them.

buildkit.json holds, for each, the configuration, the history and the tree of every layer that real dockerd 28.5 (BuildKit 0.25) gave.
Times are left out, and what runc leaves of its mount points where the base image has none.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine_harness import BUSYBOX

CORPUS = Path(__file__).parent / "build" / "corpus"
CONTEXT = CORPUS / "context"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in CORPUS.glob("*.Dockerfile"))
FACTS = CORPUS / "buildkit.json"
LATER = {"copy_parents"}  # its flag came after the frontend of that daemon
LEFT = {"dev", "etc", "proc", "sys"}

Docker = Callable[..., "subprocess.CompletedProcess[bytes]"]
Facts = dict[str, Any]


def bake_file(prefix: str) -> bytes:
    """For `docker buildx bake`: all of them, named PREFIX-name."""
    targets = {
        name: {"context": str(CONTEXT), "dockerfile": str(CORPUS / f"{name}.Dockerfile"), "tags": [f"{prefix}-{name}"], "no-cache": True}
        for name in NAMES
    }
    names = [name for name in NAMES if name not in LATER]
    return json.dumps({"group": {"default": {"targets": names}, "all": {"targets": NAMES}}, "target": targets}).encode()


def facts_of(docker: Docker, prefix: str, names: list[str]) -> dict[str, Facts]:
    """What the images PREFIX-name are."""
    saved = docker("save", *(f"{prefix}-{name}" for name in names)).stdout
    busybox = sha256(Path(BUSYBOX).read_bytes()).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        rows = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        return dict(_facts(archive, row, prefix, busybox) for row in rows)


def _facts(archive: tarfile.TarFile, row: dict[str, Any], prefix: str, busybox: str) -> tuple[str, Facts]:
    config = json.load(archive.extractfile(row["Config"]))  # type: ignore[arg-type]
    (tag,) = row["RepoTags"]
    name = tag.rpartition("/")[2].removeprefix(f"{prefix}-").removesuffix(":latest")
    history = [{key: value for key, value in one.items() if key != "created" and value != ""} for one in config["history"]]
    layers = [_tree(archive.extractfile(layer).read(), busybox) for layer in row["Layers"]]  # type: ignore[union-attr]
    if history[0].get("comment") == "Imported from -":
        layers = layers[1:]
    rest = {key: value for key, value in config.items() if key not in ("created", "history", "rootfs")}
    return name, {**rest, "history": history, "layers": layers}


def _tree(layer: bytes, busybox: str) -> dict[str, list[Any]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            if member.name in LEFT and member.isdir():
                continue
            held = member.isreg() or member.islnk()
            digest = sha256(tar.extractfile(member).read()).hexdigest()[:16] if held else ""  # type: ignore[union-attr]
            kind = "file" if held else member.type.decode()  # which of a file's names comes first is nobody's to say
            mode = "" if "/.wh." in member.name else oct(member.mode & 0o7777)
            linked = member.linkname if member.issym() else ""
            found[member.name] = [kind, mode, member.uid, member.gid, linked, "busybox" if busybox.startswith(digest or "-") else digest]
    return dict(sorted(found.items()))
