"""One call of one admission webhook: an AdmissionReview posted (`webhook`), and its answer read."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.machinery.kind import Kind
from atoll.apiserver.webhook import post
from atoll.errors import AtollError, InvalidInput, StatusError

MaybeObject = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refusal` is None when the request is allowed; `patch` a JSON patch, empty when nothing is to change."""

    refusal: StatusError | None
    patch: list[Any]
    warnings: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)  # for the audit log


async def ask(core: Core, hook: Mapping[str, Any], call: Call, operation: str, new: MaybeObject, old: MaybeObject) -> Verdict:
    """Raises AtollError saying why the webhook could not be asked or has not answered as it should."""
    version = next((each for each in hook.get("admissionReviewVersions") or () if each in ("v1", "v1beta1")), None)
    if version is None:
        raise InvalidInput("webhook does not accept known AdmissionReview versions (v1, v1beta1)")
    review = _review(call, version, operation, new, old)
    seconds = hook.get("timeoutSeconds") or 10
    content = await post(core, hook.get("clientConfig") or {}, orjson.dumps(review), seconds, f"timeout={seconds}s")
    return _verdict(hook["name"], review, content)


def admission_request(call: Call, operation: str) -> dict[str, Any]:
    """The AdmissionRequest without its objects; what of it is empty is there all the same."""
    user: dict[str, Any] = {"username": call.user.name, "uid": call.user.uid, "groups": list(call.user.groups)}
    if call.user.extra:
        user["extra"] = {name: list(values) for name, values in call.user.extra.items()}
    return {
        **_coordinates(call.kind, call.subresource, "kind", "resource", "subResource"),
        **_coordinates(call.face, call.subresource, "requestKind", "requestResource", "requestSubResource"),
        "name": call.name or "",
        "namespace": call.namespace or "",
        "operation": operation,
        "userInfo": user,
        "dryRun": call.dry_run,
        "options": None if operation == "CONNECT" else {"kind": f"{operation.title()}Options", "apiVersion": "meta.k8s.io/v1"},
    }


def _review(call: Call, version: str, operation: str, new: MaybeObject, old: MaybeObject) -> dict[str, Any]:
    told = admission_request(call, operation)
    if not call.subresource:
        del told["subResource"], told["requestSubResource"]
    request = {"uid": str(uuid.uuid4()), **told, "object": new, "oldObject": old}
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}


def _coordinates(kind: Kind, subresource: str, *names: str) -> dict[str, Any]:
    resource = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    sub = kind.subresource(subresource) if subresource else None
    return dict(zip(names, ((sub.gvk if sub else kind.gvk)._asdict(), resource, subresource), strict=True))


def _verdict(name: str, review: Mapping[str, Any], content: bytes) -> Verdict:
    try:
        answer = orjson.loads(content)
        response = answer["response"]
        allowed, uid = response["allowed"], response.get("uid")
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        raise InvalidInput("expected response of an AdmissionReview, got something else") from None
    if answer.get("apiVersion", review["apiVersion"]) != review["apiVersion"] or uid != review["request"]["uid"]:
        raise InvalidInput(f'expected response.uid="{review["request"]["uid"]}" in {review["apiVersion"]}, got {uid!r}')
    warnings = tuple(str(warning) for warning in response.get("warnings") or ())
    annotations = {f"{name}/{key}": str(value) for key, value in (response.get("auditAnnotations") or {}).items()}
    if not allowed:
        return Verdict(_refusal(name, response.get("status") or {}), [], warnings, annotations)
    if not response.get("patch"):
        return Verdict(None, [], warnings, annotations)
    if response.get("patchType") != "JSONPatch":
        raise InvalidInput(f'invalid response.patchType: {response.get("patchType")!r}, expected "JSONPatch"')
    try:
        patch = orjson.loads(base64.b64decode(response["patch"], validate=True))
    except (ValueError, TypeError):
        raise InvalidInput("the response's patch is not JSON in base64") from None
    return Verdict(None, patch if isinstance(patch, list) else [patch], warnings, annotations)


def _refusal(name: str, status: Mapping[str, Any]) -> StatusError:
    code = status.get("code") or 400
    why = status.get("message") or status.get("reason")
    denied = f'admission webhook "{name}" denied the request'
    message = f"{denied}: {why}" if why else f"{denied} without explanation"
    return StatusError(max(int(code), 400), str(status.get("reason") or ""), message, status.get("details"))


def failed(hook: Mapping[str, Any], error: AtollError) -> StatusError:
    """What the caller is told when a webhook that must be asked could not be."""
    from atoll.apiserver.machinery import statuses

    return statuses.internal(f'failed calling webhook "{hook["name"]}": failed to call webhook: {error}')
