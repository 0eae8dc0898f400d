"""What is told of one request, from its arrival to its end: the events of audit.k8s.io/v1."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from atoll.apiserver.audit.log import AuditLog
from atoll.apiserver.audit.policy import COMPLETE, NOTHING, RECEIVED, STARTED, Decision, Policy, Subject
from atoll.apiserver.call import ANONYMOUS, Call, User
from atoll.http import Request, Response
from atoll.units import timestamp_micro

_ID = "audit-id"


class Auditor:
    def __init__(self, policy: Policy, file: AuditLog, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.policy = policy
        self.file = file
        self.clock_ns = clock_ns

    def begin(self, request: Request) -> Record:
        return Record(self, request)

    def close(self) -> None:
        self.file.close()


class Record:
    """One request. `identify` once it is known who asks for what, `end` with the answer."""

    def __init__(self, auditor: Auditor, request: Request) -> None:
        self._auditor = auditor
        self._request = request
        self._decision: Decision | None = None
        self._received = timestamp_micro(auditor.clock_ns())
        self._call: Call | None = None
        self._told: dict[str, Any] = {}
        self._allowed: bool | None = None
        self._reason = ""
        self._body: bytes | None = None

    def identify(self, user: User, acting: User, call: Call | None, verb: str) -> None:
        """`acting` is whom the request is served as, where it is not `user`."""
        self._call = call
        if call is not None:
            face = call.face
            subject = Subject(user, verb, face.group, face.plural, call.subresource, call.namespace or "", call.name or "", path="")
        else:
            subject = Subject(user, verb, path=self._request.path)
        self._decision = self._auditor.policy.decide(subject)
        if self._decision.level == "None":
            return
        self._describe(user, acting, verb)
        self._emit(RECEIVED)

    def _describe(self, user: User, acting: User, verb: str) -> None:
        request = self._request
        self._told = {
            "auditID": (request.headers.get(_ID) or "")[:64] or str(uuid.uuid4()),
            "requestURI": request.target,
            "verb": verb,
            "user": _shown(user),
            **({"impersonatedUser": _shown(acting)} if acting is not user else {}),
            "sourceIPs": [_address(request.peer.address)],
            "userAgent": (request.headers.get("user-agent") or "")[:1024],
        }

    @property
    def wants_request(self) -> bool:
        return self._decision is not None and self._decision.at_least("Request")

    def took(self, value: Any) -> None:
        """The request's object, before anything is made of it."""
        if self.wants_request:
            self._body = orjson.dumps(self._pruned(value))

    @property
    def is_told(self) -> bool:
        return bool(self._told)

    def decided(self, *, allowed: bool, reason: str) -> None:
        """By the authoriser."""
        self._allowed, self._reason = allowed, reason

    def end(self, response: Response | None) -> None:
        """`response` is None where the connection was taken over and has ended."""
        if self._decision is None:  # nobody has been made of the credentials
            self.identify(ANONYMOUS, ANONYMOUS, None, self._request.method.lower())
        if self._decision in (None, NOTHING) or not self._told:
            return
        status = response.status if response is not None else 101
        if response is not None and not isinstance(response.body, bytes):
            self._emit(STARTED, status)
            response.body = self._followed(response.body, status)
            return
        self._emit(COMPLETE, status, response)

    async def _followed(self, body: AsyncIterator[bytes], status: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in body:
                yield chunk
        finally:
            self._emit(COMPLETE, status)

    def _emit(self, stage: str, status: int = 0, response: Response | None = None) -> None:
        decision = self._decision
        assert decision is not None
        if stage in decision.omitted:
            return
        event: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": decision.level,
            "stage": stage,
            **self._told,
            **({"objectRef": self._reference(self._call)} if self._call is not None else {}),
        }
        if status:
            event["responseStatus"] = {"metadata": {}, "code": status, **self._failure(status, response)}
        if stage == COMPLETE and self._body is not None:
            event["requestObject"] = orjson.Fragment(self._body)
        if response is not None and decision.at_least("RequestResponse"):
            answered = self._answered(response)
            if answered is not None:
                event["responseObject"] = answered
        event["requestReceivedTimestamp"] = self._received
        event["stageTimestamp"] = timestamp_micro(self._auditor.clock_ns())
        if stage != RECEIVED:
            event["annotations"] = self._annotations()
        self._auditor.file.write(orjson.dumps(event))

    def _annotations(self) -> dict[str, str]:
        told = {}
        if self._allowed is not None:
            verdict = "allow" if self._allowed else "forbid"
            told = {"authorization.k8s.io/decision": verdict, "authorization.k8s.io/reason": self._reason}
        return {**told, **((self._call.annotations or {}) if self._call is not None else {})}

    def _failure(self, status: int, response: Response | None) -> dict[str, Any]:
        if status < 400 or response is None or not isinstance(response.body, bytes):
            return {}
        try:
            told = orjson.loads(response.body)
        except orjson.JSONDecodeError:
            return {}
        return {name: told[name] for name in ("status", "message", "reason", "details") if name in told} if isinstance(told, dict) else {}

    def _answered(self, response: Response) -> Any:
        kind = dict(response.headers).get("Content-Type", "")
        if not isinstance(response.body, bytes) or not response.body or not kind.startswith("application/json"):
            return None
        if ("Content-Encoding", "gzip") in response.headers:
            return None
        decision = self._decision
        if decision is not None and decision.without_managed_fields:
            return self._pruned(orjson.loads(response.body))
        return orjson.Fragment(response.body)

    def _pruned(self, value: Any) -> Any:
        if self._decision is None or not self._decision.without_managed_fields or not isinstance(value, dict):
            return value
        items = value.get("items")
        if isinstance(items, list):
            return {**value, "items": [self._pruned(item) for item in items]}
        metadata = value.get("metadata")
        if not isinstance(metadata, dict) or "managedFields" not in metadata:
            return value
        return {**value, "metadata": {name: each for name, each in metadata.items() if name != "managedFields"}}

    def _reference(self, call: Call) -> dict[str, str]:
        face = call.face
        told = {
            "resource": face.plural,
            "namespace": call.namespace or "",
            "name": call.name or "",
            "apiGroup": face.group,
            "apiVersion": face.version,
            "subresource": call.subresource,
        }
        return {name: value for name, value in told.items() if value}


def _shown(user: User) -> dict[str, Any]:
    told: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    told["extra"] = {name: list(values) for name, values in user.extra.items()}
    return {name: value for name, value in told.items() if value}


def _address(peer: str) -> str:
    """Of `address:port`."""
    return peer.rpartition(":")[0].strip("[]") or peer
