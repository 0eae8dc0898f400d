"""The variables of a request, as policies and match conditions see them."""

from __future__ import annotations

from typing import Any

from atoll.apiserver.admission.hookcall import admission_request
from atoll.apiserver.admission.matching import MaybeObject, namespace_object, operation_of
from atoll.apiserver.admission.policies.compiled import Programs
from atoll.apiserver.call import Call
from atoll.apiserver.core import Core

Values = dict[str, Any]


def values_of(core: Core, programs: Programs, call: Call, new: MaybeObject, old: MaybeObject) -> Values:
    access = programs.language.access
    assert access is not None
    return {
        "object": new,
        "oldObject": old,
        "request": admission_request(call, operation_of(call, new, old)),
        "params": None,
        "namespaceObject": namespace_object(core, call, new, old),
        "authorizer": access.value(call),
    }
