"""JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386).

The document is the caller's own copy and is changed in place. Work is bounded: so many operations, and so many bytes copied.
"""

from __future__ import annotations

from typing import Any

import orjson

from atoll.apiserver.machinery import statuses
from atoll.errors import StatusError

OPERATIONS_MAX = 10_000  # upstream's maxJSONPatchOperations
COPIED_MAX = 3 * 1024 * 1024  # bytes all "copy" operations may add, upstream's --max-resource-write-bytes


def apply_json_patch(document: Any, operations: Any) -> Any:
    """The patched document. Raises StatusError 400 for what is not a patch, 413 beyond the bounds, 422 when it does not fit."""
    if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
        raise statuses.bad_request("error decoding patch: a JSON patch is a list of operations")
    if len(operations) > OPERATIONS_MAX:
        raise StatusError(
            413, "RequestEntityTooLarge", f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    copied = 0
    for operation in operations:
        name = operation.get("op")
        path = _pointer(operation.get("path"))
        if name in ("add", "replace", "test") and "value" not in operation:
            raise _misfit(f"{name} operation on {operation.get('path')} has no value")
        if name == "add":
            document = _add(document, path, operation["value"])
        elif name == "remove":
            document = _remove(document, path)
        elif name == "replace":
            _find(document, path)
            document = _add(_remove(document, path), path, operation["value"]) if path else operation["value"]
        elif name == "move":
            source = _pointer(operation.get("from"))
            if path[: len(source)] == source and path != source:
                raise _misfit(f"cannot move {operation['from']} into itself")
            value = _find(document, source)
            document = _add(_remove(document, source), path, value)
        elif name == "copy":
            encoded = orjson.dumps(_find(document, _pointer(operation.get("from"))))
            copied += len(encoded)
            if copied > COPIED_MAX:
                raise StatusError(413, "RequestEntityTooLarge", f"Unable to complete the copy, the accumulated size is over {COPIED_MAX}")
            document = _add(document, path, orjson.loads(encoded))
        elif name == "test":
            if not _equal(_find(document, path), operation["value"]):
                raise _misfit(f"testing value {operation['path']} failed: test failed")
        else:
            raise _misfit(f"Unexpected kind: {name}")
    return document


def apply_merge_patch(document: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    if not isinstance(document, dict):
        document = {}
    for key, value in patch.items():
        if value is None:
            document.pop(key, None)
        else:
            document[key] = apply_merge_patch(document.get(key), value)
    return document


def _pointer(text: Any) -> list[str]:
    """A JSON pointer's steps (RFC 6901)."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise _misfit(f"invalid path {text!r}: a JSON pointer begins with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _find(document: Any, path: list[str]) -> Any:
    for step in path:
        document = _child(document, step, path)
    return document


def _child(parent: Any, step: str, path: list[str]) -> Any:
    if isinstance(parent, dict) and step in parent:
        return parent[step]
    if isinstance(parent, list):
        index = _index(step, len(parent), path)
        if index < len(parent):
            return parent[index]
    raise _misfit(f"the path /{'/'.join(path)} does not exist")


def _index(step: str, length: int, path: list[str]) -> int:
    if step == "-":
        return length
    if not (step.isascii() and step.isdecimal()) or (step != "0" and step.startswith("0")) or len(step) > 9 or int(step) > length:
        raise _misfit(f"invalid index {step!r} in /{'/'.join(path)}")
    return int(step)


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _find(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(path[-1], len(parent), path), value)
    else:
        raise _misfit(f"the path /{'/'.join(path)} does not exist")
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    parent = _find(document, path[:-1])
    _child(parent, path[-1], path)
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[_index(path[-1], len(parent), path)]
    return document


def _equal(left: Any, right: Any) -> bool:
    """JSON's equality: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _misfit(why: str) -> StatusError:
    return StatusError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}", {})
