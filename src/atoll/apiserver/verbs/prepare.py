"""The gate every written object passes, whichever verb brings it: schema, defaults, admission, the kind's own rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.core import Core
from atoll.apiserver.kinds import rules_for
from atoll.apiserver.kinds.rules import Rules
from atoll.apiserver.machinery import statuses
from atoll.apiserver.machinery.items import Object
from atoll.apiserver.machinery.kind import Cause, Kind
from atoll.apiserver.machinery.versions import converted, from_stored


def typed(kind: Kind, obj: Any) -> Object:
    """The object with kind and apiVersion; those it came with must be the URL's. Raises StatusError 400."""
    if not isinstance(obj, dict):
        raise statuses.bad_request(f"the body must be a {kind.kind} object")
    given_kind, given_version = obj.get("kind"), obj.get("apiVersion")
    if given_kind not in (None, "", kind.kind):
        raise statuses.bad_request(f"the kind in the data ({given_kind}) does not match the expected kind ({kind.kind})")
    if given_version not in (None, "", kind.api_version):
        raise statuses.bad_request(
            f"the API version in the data ({given_version}) does not match the expected API version ({kind.api_version})"
        )
    if not isinstance(obj.get("metadata", {}), dict | None):
        raise statuses.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: metadata must be an object'
        )
    if not given_kind or not given_version or obj.get("metadata") is None:
        return {**obj, "kind": kind.kind, "apiVersion": kind.api_version, "metadata": obj.get("metadata") or {}}
    return obj


def check_schema(call: Call, kind: Kind, obj: Object, duplicates: tuple[str, ...] = (), verb: str = "") -> Object:
    """The object as the schema sees it. Raises 400 for a wrong type and, when validation is strict, for unknown and duplicate fields;
    only warns when validation is Warn.
    """
    outcome = kind.schema.validate(obj)
    if outcome.error:
        raise statuses.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {outcome.error}')
    complaints = (*duplicates, *outcome.unknown)
    if complaints and call.field_validation == "Strict":
        problem = f"strict decoding error: {', '.join(complaints)}"
        if verb == "patch":
            raise statuses.bad_request(problem)
        raise statuses.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {problem}')
    if call.field_validation == "Warn":
        call.warnings.extend(complaints)
    return outcome.object


async def admit_new(core: Core, call: Call, obj: Object) -> None:
    """Default, admit and validate an object that is to be created."""
    kind = _judge(call)
    rules = rules_for(kind)
    rules.default(obj)
    await core.admission.mutate(call, obj, None)
    rules.default(obj)
    rules.prepare_for_create(kind, obj)
    causes = await _checked(core, rules, rules.validate, kind, obj)
    if causes:
        raise statuses.invalid(kind, obj["metadata"].get("name") or "", causes)
    await core.admission.validate(call, obj, None)
    await _settle(call, obj)


async def admit_change(core: Core, call: Call, new: Object, old: Mapping[str, Any]) -> None:
    """The same for one that replaces `old`."""
    kind = _judge(call)
    rules = rules_for(kind)
    if kind is not call.kind:
        old = from_stored(kind, dict(old))
    rules.default(new)
    _keep_identity(new["metadata"], old["metadata"])
    await core.admission.mutate(call, new, old)
    rules.default(new)
    rules.prepare_for_update(kind, new, old, call.subresource)
    causes = await _checked(core, rules, rules.validate_update, kind, new, old, call.subresource)
    if causes:
        raise statuses.invalid(kind, new["metadata"].get("name") or "", causes)
    await core.admission.validate(call, new, old)
    await _settle(call, new)


async def _checked(core: Core, rules: Rules, check: Callable[..., list[Cause]], *args: Any) -> list[Cause]:
    if not rules.slow:
        return check(*args)
    async with core.slow_checks:
        return await asyncio.to_thread(check, *args)


def _judge(call: Call) -> Kind:
    """The kind whose rules count: a custom resource is judged by the version it was written in, a built-in one by the version stored."""
    return call.kind if call.kind.builtin else call.face


async def _settle(call: Call, obj: Object) -> None:
    """Turn a custom resource into the version it is stored in: by its webhook, or by taking out what that version does not know."""
    kind = call.kind
    if kind.builtin or (kind.converter is None and call.face is kind):
        return
    if kind.converter is None:
        settled = kind.schema.validate(obj).object
    elif obj["apiVersion"] != kind.api_version:
        [settled] = await converted(kind, [obj])
    else:
        return
    if settled is not obj:
        obj.clear()
        obj.update(settled)


_SYSTEM_FIELDS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")


def _keep_identity(new: Object, old: Mapping[str, Any]) -> None:
    """What only the server sets stays as it was (apimachinery's registry/rest, BeforeUpdate)."""
    new.pop("selfLink", None)
    for name in _SYSTEM_FIELDS:
        if name in old:
            new[name] = old[name]
        else:
            new.pop(name, None)
