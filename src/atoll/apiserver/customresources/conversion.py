"""Conversion of custom resources between their versions by a webhook (apiextensions.k8s.io/v1, ConversionReview).

Objects stay in the store in the version they were written in; whoever asks for another one gets what the webhook makes of it. It may change
everything but the metadata, of which only labels and annotations are its business.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from atoll.apiserver.core import Core
from atoll.apiserver.kinds.causes import Causes
from atoll.apiserver.kinds.metadata import validate_annotations, validate_labels
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.webhook import post
from atoll.errors import AtollError, StatusError

GROUP = "apiextensions.k8s.io"
REVIEW_VERSIONS = ("v1", "v1beta1")
TIMEOUT_S = 30.0  # upstream's
BATCH = 500  # objects a call: as many as kubectl asks for in a page
ANSWER_MAX = 64 * 1024 * 1024
_SAME = (("name", "name"), ("namespace", "namespace"), ("uid", "UID"))


class WebhookConversion:
    """What a definition's spec.conversion.webhook asks for."""

    def __init__(self, core: Core, webhook: Mapping[str, Any]) -> None:
        self._core = core
        self._client = webhook.get("clientConfig") or {}
        self._review = next((each for each in webhook.get("conversionReviewVersions") or () if each in REVIEW_VERSIONS), REVIEW_VERSIONS[0])

    async def convert(self, objects: Sequence[Object], api_version: str) -> list[Object]:
        """The objects, which are not changed, in another version. Raises StatusError 500 saying how the webhook failed."""
        converted: list[Object] = []
        for begin in range(0, len(objects), BATCH):
            converted += await self._convert(objects[begin : begin + BATCH], api_version)
        return converted

    async def _convert(self, objects: Sequence[Object], api_version: str) -> list[Object]:
        first = objects[0]
        called = f"conversion webhook for {first['apiVersion']}, Kind={first['kind']}"
        uid = str(uuid.uuid4())
        asked = {"uid": uid, "desiredAPIVersion": api_version, "objects": list(objects)}
        review_version = f"{GROUP}/{self._review}"
        review = {"kind": "ConversionReview", "apiVersion": review_version, "request": asked}
        try:
            content = await post(self._core, self._client, orjson.dumps(review), TIMEOUT_S, answer_max=ANSWER_MAX)
            answered = _objects(content, review_version, uid)
        except (AtollError, OSError) as error:
            raise _failed(f"{called} failed: {error}") from None
        if len(answered) != len(objects):
            raise _failed(f"{called} returned {len(answered)} objects, expected {len(objects)}")
        made = []
        for index, (before, after) in enumerate(zip(objects, answered, strict=True)):
            problem = _problem(before, after, api_version)
            if problem:
                raise _failed(f"{called} returned invalid converted object at index {index}: {problem}")
            problem = _metadata_problem(before["metadata"], after["metadata"])
            if problem:
                raise _failed(f"{called} returned invalid metadata in object at index {index}: {problem}")
            made.append({**after, "metadata": _restored(before["metadata"], after["metadata"])})
        return made


def _failed(why: str) -> StatusError:
    return StatusError(500, "", why)


def _objects(content: bytes, api_version: str, uid: str) -> list[Any]:
    try:
        answer = orjson.loads(content)
        kind, version, response = answer.get("kind"), answer.get("apiVersion"), answer.get("response")
    except (orjson.JSONDecodeError, AttributeError):
        raise AtollError("the answer is no ConversionReview") from None
    if (kind, version) != ("ConversionReview", api_version):
        raise AtollError(f"expected webhook response of {api_version}, Kind=ConversionReview, got {version}, Kind={kind}")
    if not isinstance(response, dict):
        raise AtollError("no response provided")
    if response.get("uid") != uid:
        raise AtollError(f'expected response.uid="{uid}", got "{response.get("uid")}"')
    result = response.get("result")
    status = result.get("status") if isinstance(result, dict) else None
    if status != "Success":
        told = result.get("message") if isinstance(result, dict) else ""
        raise AtollError(str(told) if told else f"response.result.status was '{status or ''}', not 'Success'")
    objects = response.get("convertedObjects")
    return objects if isinstance(objects, list) else []


def _problem(before: Object, after: Any, api_version: str) -> str:
    """What is wrong with a converted object as a whole; "" when nothing is."""
    if not isinstance(after, dict):
        return f"invalid type, expected an object, got {type(after).__name__}"
    if after.get("apiVersion") != api_version:
        return f"invalid groupVersion (expected {api_version}, received {after.get('apiVersion')})"
    if after.get("kind") != before["kind"]:
        return f"invalid kind (expected {before['kind']}, received {after.get('kind')})"
    metadata = after.get("metadata")
    if not isinstance(metadata, dict):
        return "missing metadata in converted object"
    for field, called in _SAME:
        was, now = before["metadata"].get(field) or "", metadata.get(field) or ""
        if was != now:
            return f"must have the same {called}: {was} != {now}"
    return ""


def _metadata_problem(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    causes = Causes()
    for field, check in (("labels", validate_labels), ("annotations", validate_annotations)):
        told = after.get(field)
        if told is None or told == before.get(field):
            continue
        if not isinstance(told, dict):
            return f"invalid metadata.{field} of type {type(told).__name__} in converted object"
        for key, value in told.items():
            if not isinstance(value, str):
                return f"metadata.{field}[{key}] must be a string, but is {type(value).__name__} in converted object"
        check(told, f"metadata.{field}", causes)
    return ", ".join(f"{cause.field}: {cause.message}" for cause in causes)


def _restored(before: Mapping[str, Any], after: Mapping[str, Any]) -> Object:
    """The metadata it had, with the labels and annotations it was given."""
    told = {field: after[field] for field in ("labels", "annotations") if after.get(field) is not None}
    return {**{field: value for field, value in before.items() if field not in ("labels", "annotations")}, **told}
