"""An in-memory API server for unit tests of clients: compare-and-swap, generation, finalizers, graceful deletion, watch, selectors.

It knows no schemas, defaults or admission; the tests against the real in-process API server do. What it hands out is shared and must
not be changed, as with the real one; `check_unchanged` proves that nobody did.
"""

import asyncio
import itertools
import uuid
from fnmatch import fnmatchcase

import orjson

from atoll.apiserver.machinery.kind import ListMeta
from atoll.apiserver.machinery.patch_strategic import apply_strategic_patch
from atoll.client.objects import copy_of, key_of, make_key
from atoll.client.resources import NAMESPACES, PODS
from atoll.errors import StatusError
from atoll.units import timestamp_seconds

HISTORY = 10_000


def _not_found(resource, name):
    return StatusError(404, "NotFound", f'{resource.plural} "{name}" not found', {"name": name, "kind": resource.plural})


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _list_meta(path):
    """Of the only lists that are patched here."""
    return ListMeta("list", ("merge",), "type") if path[-1] == "conditions" else ListMeta()


def _json_patch(obj, operations):
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = obj
        for part in parents:
            at = at[int(part)] if isinstance(at, list) else at[part]
        if operation["op"] == "test":
            if (at[int(last)] if isinstance(at, list) else at.get(last)) != operation["value"]:
                raise StatusError(422, "Invalid", "test failed")
        elif isinstance(at, list):
            if operation["op"] == "add":
                at.insert(len(at) if last == "-" else int(last), operation["value"])
            elif operation["op"] == "remove":
                del at[int(last)]
            else:
                at[int(last)] = operation["value"]
        elif operation["op"] == "remove":
            del at[last]
        else:
            at[last] = operation["value"]
    return obj


def _field(obj, path):
    for part in path.split("."):
        obj = (obj or {}).get(part)
    return "" if obj is None else str(obj)


def _selected(obj, labels, fields):
    have = obj["metadata"].get("labels") or {}
    for term in filter(None, (labels or "").split(",")):
        if "!=" in term:
            key, value = term.split("!=")
            if have.get(key) == value:
                return False
        elif "=" in term:
            key, value = term.replace("==", "=").split("=")
            if have.get(key) != value:
                return False
        elif term.startswith("!"):
            if term[1:] in have:
                return False
        elif term not in have:
            return False
    for term in filter(None, (fields or "").split(",")):
        if "!=" in term:
            path, value = term.split("!=")
            if _field(obj, path) == value:
                return False
        else:
            path, value = term.replace("==", "=").split("=")
            if _field(obj, path) != value:
                return False
    return True


class FakeClient:
    """Matches `atoll.client.protocol.Client`. `actions` records writes as (verb, plural, name); `fail` makes chosen ones fail once or
    always.
    """

    def __init__(self, clock):
        self.clock = clock
        self.revision = itertools.count(1)
        self.version = 0
        self.objects = {}  # resource → key → obj
        self.actions = []
        self.failures = []  # [(pattern "verb plural name", error, times)]
        self.history = []  # (version, resource, type, obj, previous)
        self.compacted = 0
        self.watchers = set()
        self.frozen = []  # (obj, its bytes when handed out)

    # helpers of tests

    def fail(self, pattern, error, times=1):
        self.failures.append([pattern, error, times])

    def count(self, pattern):
        return sum(fnmatchcase(" ".join(action), pattern) for action in self.actions)

    def find(self, resource, name, namespace=None):
        return self.objects.get(resource, {}).get(make_key(namespace, name))

    def all(self, resource, namespace=None):
        return [obj for obj in self.objects.get(resource, {}).values() if namespace in (None, obj["metadata"].get("namespace"))]

    def check_unchanged(self):
        for obj, was in self.frozen:
            assert orjson.dumps(obj) == was, f"a shared object was changed: {key_of(obj)}"

    def compact(self):
        """Watches from before now get 410."""
        self.compacted = self.version
        self.history.clear()

    def disconnect(self):
        """Ends every open watch, as a restarting server does."""
        for watcher in list(self.watchers):
            watcher.put_nowait(None)

    # Client

    async def get(self, resource, name, namespace=None):
        obj = self.find(resource, name, namespace)
        if obj is None:
            raise _not_found(resource, name)
        return obj

    async def list(
        self, resource, namespace=None, *, label_selector=None, field_selector=None, limit=None, continue_=None, resource_version=None
    ):
        await self._act("list", resource, "")
        found = [obj for obj in self.all(resource, namespace) if _selected(obj, label_selector, field_selector)]
        start = int(continue_ or 0)
        page = found[start : start + limit] if limit else found
        metadata = {"resourceVersion": str(self.version)}
        if limit and start + limit < len(found):
            metadata["continue"] = str(start + limit)
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": page}

    async def watch(
        self,
        resource,
        namespace=None,
        *,
        resource_version,
        label_selector=None,
        field_selector=None,
        bookmarks=True,
        timeout_seconds=None,
    ):
        await self._act("watch", resource, "")
        start = int(resource_version)
        if start < self.compacted:
            raise StatusError(410, "Expired", f"too old resource version: {start} ({self.compacted})")
        wake = asyncio.Queue()
        self.watchers.add(wake)
        try:
            for event in [event for event in self.history if event[0] > start]:
                wake.put_nowait(event)
            while (event := await wake.get()) is not None:
                _, of, kind, obj, previous = event
                if of != resource or namespace not in (None, obj["metadata"].get("namespace")):
                    continue
                now = _selected(obj, label_selector, field_selector)
                before = previous is not None and _selected(previous, label_selector, field_selector)
                if kind == "DELETED" or (before and not now):
                    if before or now:
                        yield "DELETED", obj
                elif now:
                    yield ("MODIFIED" if before else "ADDED"), obj
        finally:
            self.watchers.discard(wake)

    async def create(self, resource, obj, namespace=None, *, name=None, subresource=None):
        await self._act("create", resource, name or obj["metadata"].get("name") or obj["metadata"].get("generateName", ""), subresource)
        if subresource == "binding":
            return await self._bind(obj, name, namespace)
        if subresource is not None:
            raise AssertionError(f"the fake has no {resource.plural}/{subresource}")
        obj = copy_of(obj)
        meta = obj["metadata"]
        if not meta.get("name"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if resource.namespaced:
            meta["namespace"] = namespace or meta.get("namespace")
            assert meta["namespace"], f"{resource.plural} {meta['name']} without a namespace"
        if key_of(obj) in self.objects.get(resource, {}):
            raise StatusError(409, "AlreadyExists", f'{resource.plural} "{meta["name"]}" already exists')
        meta.update(uid=str(uuid.uuid4()), creationTimestamp=timestamp_seconds(self.clock()), generation=1)
        if resource == NAMESPACES:
            obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
            obj.setdefault("status", {}).setdefault("phase", "Active")
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
        if resource == PODS:
            obj.setdefault("status", {}).setdefault("phase", "Pending")
        return self._put(resource, obj, "ADDED")

    async def update(self, resource, obj, *, subresource=None):
        meta = obj["metadata"]
        await self._act("update", resource, meta["name"], subresource)
        current = await self.get(resource, meta["name"], meta.get("namespace"))
        return self._replace(resource, current, copy_of(obj), subresource)

    async def patch(self, resource, name, patch, namespace=None, *, kind="merge", subresource=None, field_manager=None, force=False):
        await self._act("patch", resource, name, subresource)
        current = await self.get(resource, name, namespace)
        if kind == "json":
            return self._replace(resource, current, _json_patch(copy_of(current), patch), subresource)
        if kind == "strategic":
            patched = apply_strategic_patch(copy_of(current), copy_of(patch), _list_meta)
        else:
            assert kind == "merge"
            patched = merge(copy_of(current), patch)
        if "resourceVersion" not in (patch.get("metadata") or {}):
            patched["metadata"].pop("resourceVersion", None)
        return self._replace(resource, current, copy_of(patched), subresource)

    async def delete(self, resource, name, namespace=None, *, propagation=None, grace_seconds=None, uid=None, resource_version=None):
        await self._act("delete", resource, name)
        current = await self.get(resource, name, namespace)
        meta = current["metadata"]
        if (uid or meta["uid"]) != meta["uid"] or (resource_version or meta["resourceVersion"]) != meta["resourceVersion"]:
            raise StatusError(409, "Conflict", f"preconditions failed for {name}")
        obj = copy_of(current)
        finalizers = obj["metadata"].setdefault("finalizers", [])
        wanted = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(propagation)
        if wanted and wanted not in finalizers:
            finalizers.append(wanted)
        grace = 0
        if resource == PODS and obj["spec"].get("nodeName"):
            grace = obj["spec"].get("terminationGracePeriodSeconds", 30) if grace_seconds is None else grace_seconds
        held = finalizers or grace or (resource == NAMESPACES and obj["spec"].get("finalizers"))
        if not held:
            return self._remove(resource, obj)
        if obj["metadata"].get("deletionTimestamp"):
            return current
        obj["metadata"]["deletionTimestamp"] = timestamp_seconds(self.clock() + grace)
        obj["metadata"]["deletionGracePeriodSeconds"] = grace
        if resource == NAMESPACES:
            obj["status"]["phase"] = "Terminating"
        return self._put(resource, obj, "MODIFIED")

    async def delete_collection(self, resource, namespace=None, *, label_selector=None, field_selector=None):
        await self._act("deletecollection", resource, namespace or "")
        for obj in self.all(resource, namespace):
            if _selected(obj, label_selector, field_selector):
                await self.delete(resource, obj["metadata"]["name"], obj["metadata"].get("namespace"))
        return {"kind": "Status", "status": "Success"}

    # inside

    async def _act(self, verb, resource, name, subresource=None):
        await asyncio.sleep(0)
        action = (verb, resource.plural + (f"/{subresource}" if subresource else ""), name)
        if verb not in ("list", "watch"):
            self.actions.append(action)
        for failure in self.failures:
            if failure[2] and fnmatchcase(" ".join(action), failure[0]):
                failure[2] -= 1
                raise failure[1]

    async def _bind(self, binding, name, namespace):
        current = await self.get(PODS, name, namespace)
        if current["spec"].get("nodeName"):
            raise StatusError(409, "Conflict", f"pod {name} is already assigned to node {current['spec']['nodeName']}")
        pod = copy_of(current)
        pod["spec"]["nodeName"] = binding["target"]["name"]
        conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "PodScheduled"]
        pod["status"]["conditions"] = [*conditions, {"type": "PodScheduled", "status": "True"}]
        self._put(PODS, pod, "MODIFIED")
        return {"kind": "Status", "status": "Success"}

    def _replace(self, resource, current, new, subresource):
        was, now = current["metadata"], new["metadata"]
        if now.get("resourceVersion") not in (None, was["resourceVersion"]):
            raise StatusError(
                409, "Conflict", f'Operation cannot be fulfilled on {resource.plural} "{was["name"]}": the object has been modified'
            )
        if now.get("uid", was["uid"]) != was["uid"]:
            raise StatusError(409, "Conflict", f"uid of {was['name']} differs")
        if subresource == "status":
            obj = copy_of(current) | {"status": new.get("status", {})}
        else:
            obj = new | ({"status": copy_of(current["status"])} if "status" in current else {})
            if subresource == "finalize":
                obj = copy_of(current) | {"spec": new["spec"]}
        for field in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            if field in was:
                obj["metadata"][field] = was[field]
            else:
                obj["metadata"].pop(field, None)
        obj["metadata"]["resourceVersion"] = was["resourceVersion"]
        if obj.get("spec") != current.get("spec"):
            obj["metadata"]["generation"] = was["generation"] + 1
        done = was.get("deletionTimestamp") and not obj["metadata"].get("finalizers") and not was.get("deletionGracePeriodSeconds")
        if done and not (resource == NAMESPACES and obj["spec"].get("finalizers")):
            return self._remove(resource, obj)
        if obj == current:
            return current
        return self._put(resource, obj, "MODIFIED")

    def _put(self, resource, obj, kind):
        self.version = next(self.revision)
        obj["metadata"]["resourceVersion"] = str(self.version)
        key = key_of(obj)
        previous = self.objects.setdefault(resource, {}).get(key)
        self.objects[resource][key] = obj
        return self._tell(resource, kind, obj, previous)

    def _remove(self, resource, obj):
        self.version = next(self.revision)
        obj["metadata"]["resourceVersion"] = str(self.version)
        previous = self.objects[resource].pop(key_of(obj))
        return self._tell(resource, "DELETED", obj, previous)

    def _tell(self, resource, kind, obj, previous):
        self.frozen.append((obj, orjson.dumps(obj)))
        event = (self.version, resource, kind, obj, previous)
        self.history.append(event)
        del self.history[:-HISTORY]
        for watcher in self.watchers:
            watcher.put_nowait(event)
        return obj
