"""The build hook: what it keeps of the schemas, and what it says when they are not there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.apiserver.machinery.schema_file import SchemaFile

ROOT = Path(__file__).parent.parent
GVK = "x-kubernetes-group-version-kind"
DEFINITIONS: dict[str, Any] = {
    "io.k8s.api.a.v1.Thing": {
        "description": "A thing.",
        GVK: [{"group": "a", "version": "v1", "kind": "Thing"}],
        "properties": {
            "names": {"type": ["array", "null"], "items": {"type": "string"}, "x-kubernetes-list-type": "set", "description": "Names."},
            "parts": {"type": "object", "additionalProperties": {"$ref": "#/$defs/io.k8s.api.a.v1alpha1.Part"}},
            "size": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"},
        },
        "required": ["names"],
    },
    "io.k8s.api.a.v1alpha1.Part": {"properties": {"count": {"type": ["integer", "null"], "format": "int32"}}},
    "io.k8s.api.a.v1beta1.Old": {"properties": {}},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("hatchling")
    monkeypatch.syspath_prepend(str(ROOT))
    yield __import__("hatch_build")
    sys.modules.pop("hatch_build", None)


def test_stable_types_and_what_they_refer_to_are_kept(hook: Any) -> None:
    file = SchemaFile(hook.compile_schemas(DEFINITIONS))
    assert file.names == ["io.k8s.api.a.v1.Thing", "io.k8s.api.a.v1alpha1.Part"]
    assert file.number("a", "v1", "Thing") == 0
    assert file.type(0) == {
        "f": {"names": ["[]string", {"list-type": "set"}], "parts": "{}@1", "size": "quantity"},
        "r": ["names"],
        "x": {"group-version-kind": [{"group": "a", "version": "v1", "kind": "Thing"}]},
    }
    assert file.type(1) == {"f": {"count": "int32"}}
    assert file.descriptions()[0] == b'["A thing.",{"names":"Names."}]'


def test_without_the_schemas_the_build_says_what_to_do(hook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_definitions", lambda: None)
    build = hook.SchemaBuildHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    with pytest.raises(RuntimeError, match="kubernetes-validate"):
        build.initialize("standard", {})
    output = tmp_path / hook.OUTPUT
    output.parent.mkdir(parents=True)
    output.write_bytes(b"compiled before")
    build.initialize("standard", {})
    assert output.read_bytes() == b"compiled before"
