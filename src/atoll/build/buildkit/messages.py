"""The classes of messages.proto, by attribute: `messages.Vertex(digest=...)`.

The file is read here, when the first session comes, and handed to protobuf as descriptors: source that protoc generates would tie Atoll to
one release of the protobuf package, and so to what else is installed beside it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from typing import Any

from google.protobuf import timestamp_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from atoll.units import NS

_COMMENT = re.compile(r"//[^\n]*")
_HEADING = re.compile(r'package\s+([\w.]+);|import\s+"([\w./]+)";')
_MESSAGE = re.compile(r"message\s+(\w+)\s*\{([^}]*)\}")
_FIELD = re.compile(r"(repeated\s+)?(?:map<\s*(\w+)\s*,\s*([\w.]+)\s*>|([\w.]+))\s+(\w+)\s*=\s*(\d+)\s*;")


def __getattr__(name: str) -> Any:
    found = _classes().get(name)
    if found is None:
        raise AttributeError(f"messages.proto has no message {name}")
    return found


def timestamp(ns: int) -> dict[str, int]:
    """A google.protobuf.Timestamp, as a field's initial value."""
    return {"seconds": ns // NS, "nanos": ns % NS}


def moment(ns: int) -> Any:
    """The same as a message."""
    return _classes()["Vertex"](started=timestamp(ns)).started


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
    text = _COMMENT.sub("", resources.files(__package__).joinpath("messages.proto").read_text("utf-8"))
    headings = _HEADING.findall(text)
    package = next(name for name, _ in headings if name)
    file = FileDescriptorProto(name="atoll/buildkit.proto", package=package, syntax="proto3")
    file.dependency.extend(name for _, name in headings if name)
    for name, body in _MESSAGE.findall(text):
        message = file.message_type.add(name=name)
        for repeated, key, value, plain, field, number in _FIELD.findall(body):
            if key:
                entry = message.nested_type.add(name=f"{field[0].upper()}{field[1:]}Entry")
                entry.options.map_entry = True
                _add(entry, package, "key", 1, key)
                _add(entry, package, "value", 2, value)
                _add(message, package, field, int(number), f"{package}.{name}.{entry.name}", repeated=True)
            else:
                _add(message, package, field, int(number), plain, repeated=bool(repeated))
    pool = DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {message.name: GetMessageClass(pool.FindMessageTypeByName(f"{package}.{message.name}")) for message in file.message_type}


def _add(message: DescriptorProto, package: str, name: str, number: int, kind: str, *, repeated: bool = False) -> None:
    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
    scalar = f"TYPE_{kind.upper()}"
    if scalar in FieldDescriptorProto.Type.keys():  # noqa: SIM118  an enum of protobuf's is no mapping
        field.type = FieldDescriptorProto.Type.Value(scalar)
    else:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{package}.{kind}"
