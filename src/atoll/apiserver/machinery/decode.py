"""Request bodies to objects: JSON, YAML and protobuf, with duplicate fields noticed, in bounded time and memory.

JSON goes through orjson. It keeps the last of two fields of one name without a word, so the decoded object is encoded again and the `":`
in both texts counted: only when the counts differ is the text read a second time, slowly, to name what was doubled. YAML aliases are
counted as if written out before anything is built (CVE-2019-11253).
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import orjson

from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.negotiate import PROTOBUF
from atoll.apiserver.machinery.protobuf import decode_protobuf
from atoll.errors import StatusError

JSON = "application/json"
YAML = "application/yaml"
_YAML_TYPES = {YAML, "application/x-yaml", "text/yaml"}
DEPTH_MAX = 200  # deepest upstream schema: about 40, JSONSchemaProps inside itself
YAML_NODES_MAX = 200_000  # nodes with aliases written out; a 3 MB document has fewer
_LOOSE_COLON = re.compile(rb'"\s+:')


class Decoded(NamedTuple):
    value: Any
    duplicates: tuple[str, ...] = ()


def decode(body: bytes, content_type: str, *, find_duplicates: bool = False) -> Decoded:
    """The body's one document. Raises StatusError 400 for what cannot be read, 415 for a type not served."""
    media = content_type.partition(";")[0].strip().lower()
    if media == JSON or media.endswith("+json") or (not media and body[:1] in (b"{", b"[")):
        decoded = decode_json(body, find_duplicates=find_duplicates)
    elif media in _YAML_TYPES or media.endswith("+yaml") or not media:
        decoded = decode_yaml(body)
    elif media == PROTOBUF:
        decoded = Decoded(decode_protobuf(body))
    else:
        raise statuses.unsupported_media_type(
            f"the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
        )
    return decoded


def decode_json(body: bytes, *, find_duplicates: bool = False) -> Decoded:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise statuses.bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    _check_depth(body, value)
    duplicates: tuple[str, ...] = ()
    if find_duplicates and (body.count(b'":') != orjson.dumps(value).count(b'":') or _LOOSE_COLON.search(body)):
        duplicates = _json_duplicates(body)
    return Decoded(value, duplicates)


def _check_depth(body: bytes, value: Any) -> None:
    """What follows is recursive; a cheap bound first, an exact one only for texts with many brackets."""
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise statuses.bad_request(f"exceeded max depth: the document is nested deeper than {DEPTH_MAX} levels")


class _Doubled(dict[str, Any]):
    """A JSON object that remembers which of its fields came twice."""

    doubled: tuple[str, ...] = ()


def _json_duplicates(body: bytes) -> tuple[str, ...]:
    def build(pairs: list[tuple[str, Any]]) -> _Doubled:
        built = _Doubled(pairs)
        if len(built) < len(pairs):
            names = [name for name, _ in pairs]
            built.doubled = tuple(dict.fromkeys(name for index, name in enumerate(names) if name in names[:index]))
        return built

    found: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Doubled):
            found.extend(f'duplicate field "{path}{name}"' for name in value.doubled)
            for name, child in value.items():
                walk(child, f"{path}{name}.")
        elif isinstance(value, list):
            for index, child in enumerate(value):
                walk(child, f"{path[:-1]}[{index}].")

    walk(json.loads(body, object_pairs_hook=build), "")
    return tuple(found)


def decode_yaml(body: bytes) -> Decoded:
    import yaml

    loader = yaml_loader()(body)
    try:
        node = loader.get_single_node()
        if node is None:
            return Decoded({})
        duplicates = _inspect_yaml(node)
        return Decoded(loader.construct_document(node), duplicates)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise statuses.bad_request(f"error converting YAML to JSON: yaml: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def _inspect_yaml(root: Any) -> tuple[str, ...]:
    """Duplicate keys by line. Raises StatusError 400 for aliases that grow without measure, or into themselves."""
    import yaml

    sizes: dict[int, int] = {}
    duplicates: list[str] = []

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if known < 0:
                raise _bad_yaml("anchor contains itself")
            return known
        if depth > DEPTH_MAX:
            raise _bad_yaml(f"exceeded max depth of {DEPTH_MAX}")
        sizes[id(node)] = -1
        total = 1
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        duplicates.append(f'line {key.start_mark.line + 1}: key "{key.value}" already set in map')
                    seen.add(key.value)
                total += size(key, depth + 1) + size(value, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                total += size(child, depth + 1)
        if total > YAML_NODES_MAX:
            raise _bad_yaml("document contains excessive aliasing")
        sizes[id(node)] = total
        return total

    size(root, 0)
    return tuple(duplicates)


def _bad_yaml(why: str) -> StatusError:
    return statuses.bad_request(f"error converting YAML to JSON: yaml: {why}")


def yaml_loader() -> Any:
    """YAML's JSON-shaped part: no tags that build objects, dates stay text."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        first: [(tag, pattern) for tag, pattern in entries if tag != "tag:yaml.org,2002:timestamp"]
        for first, entries in base.yaml_implicit_resolvers.items()
    }
    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})
