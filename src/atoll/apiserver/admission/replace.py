"""Taking over what a webhook or policy has made of an object."""

from __future__ import annotations

from typing import Any

from atoll.apiserver.call import Call
from atoll.apiserver.machinery.items import Object
from atoll.errors import InvalidInput

_KEPT = ("name", "generateName", "namespace", "uid", "creationTimestamp", "resourceVersion", "managedFields")  # not theirs to change


def replace_object(call: Call, new: Object, changed: Any) -> bool:
    """Make `new` what it was changed into, but for what names it; whether that is different. Raises InvalidInput for no valid object."""
    outcome = call.kind.schema.validate(changed) if isinstance(changed, dict) else None
    if outcome is None or outcome.error:
        raise InvalidInput(f"no valid object: {outcome.error if outcome else 'it is no object'}")
    wanted = dict(outcome.object)
    kept = {name: new["metadata"][name] for name in _KEPT if name in new["metadata"]}
    wanted["metadata"] = {**{name: value for name, value in (wanted.get("metadata") or {}).items() if name not in _KEPT}, **kept}
    if wanted == new:
        return False
    new.clear()
    new.update(wanted)
    return True
