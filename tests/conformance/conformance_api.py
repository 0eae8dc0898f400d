"""A Kubernetes client that hides nothing: requests by hand over TLS, answers as the JSON that came.

What a conformance test asserts is what is on the wire; a typed client would fill in, rename and leave out.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

import yaml

PATIENCE_S = 15.0
STEP_S = 0.01
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Refused(AssertionError):
    """The server has answered with a Status of failure. An AssertionError: where no test expects it, a test has failed."""

    def __init__(self, asked, code, status):
        super().__init__(f"{asked}: {code} {status.get('reason')}: {status.get('message')}")
        self.code, self.status = code, status
        self.reason, self.message = status.get("reason", ""), status.get("message", "")


def until(question, what="it", seconds=PATIENCE_S):
    """The first true answer; fails with the last one."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what}: still {answer!r} after {seconds} s"
        time.sleep(STEP_S)
    return answer


class Answer:
    def __init__(self, code, headers, body):
        self.code, self.headers, self.body = code, headers, body

    def json(self):
        return json.loads(self.body)

    @property
    def warnings(self):
        return self.headers.get_all("Warning") or []


class Api:
    """One server as one user: the kubeconfig's, or whoever a bearer token names."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.kubeconfig, self.token = kubeconfig, token
        self.server = cluster["server"]
        self.ca = base64.b64decode(cluster["certificate-authority-data"])
        host, _, port = self.server.removeprefix("https://").partition(":")
        self.address = host, int(port)
        self._context = ssl.create_default_context(cadata=self.ca.decode())
        if token is None:
            pair = kubeconfig.with_suffix(".pem")
            pair.write_bytes(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pair.chmod(0o600)
            self._context.load_cert_chain(pair)
        self._local = threading.local()
        self._open = []

    def as_bearer(self, token: str) -> Api:
        return Api(self.kubeconfig, token)

    def connect(self, timeout=60):
        return http.client.HTTPSConnection(*self.address, context=self._context, timeout=timeout)

    def request(self, method, path, body=None, *, kind="application/json", accept="application/json", headers=None, **query) -> Answer:
        """Whatever the server says. Query parameters that are None are left out, `_` at a name's end too (`continue_`)."""
        path, sent = self._prepared(path, body, kind, accept, headers, query)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self.connect()
            self._open.append(connection)
        connection.request(method, path, data, sent)
        reply = connection.getresponse()
        return Answer(reply.status, reply.headers, reply.read())

    def _prepared(self, path, body, kind, accept, headers, query):
        given = {name.removesuffix("_"): value for name, value in query.items() if value is not None}
        sent = {"Accept": accept, **(headers or {})}
        if body is not None:
            sent["Content-Type"] = kind
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if given:
            path += ("&" if "?" in path else "?") + urlencode(given)
        return path, sent

    def call(self, method, path, body=None, **options):
        """The answer's object. Raises Refused."""
        answer = self.request(method, path, body, **options)
        value = answer.json() if answer.body else None
        if answer.code >= 400:
            raise Refused(f"{method} {path}", answer.code, value)
        return value

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def at(self, resource, namespace=None) -> Collection:
        return Collection(self, resource, namespace)

    def watch(self, path, **query) -> Watch:
        path, sent = self._prepared(path, None, "", "application/json", None, {"watch": "true", **query})
        connection = self.connect(PATIENCE_S)
        connection.request("GET", path, None, sent)
        reply = connection.getresponse()
        if reply.status >= 400:
            with contextlib.closing(connection):
                raise Refused(f"watch {path}", reply.status, json.loads(reply.read()))
        return Watch(connection, reply, path)

    def close(self):
        for connection in self._open:
            connection.close()


class Collection:
    """A resource, of one namespace or of all."""

    def __init__(self, api: Api, resource, namespace=None) -> None:
        self.api, self.resource, self.namespace = api, resource, namespace

    def path(self, name=None, sub=None):
        return self.resource.path(self.namespace, name, sub)

    def make(self, name=None, *, labels=None, annotations=None, metadata=None, **fields):
        """An object of this resource, with the metadata given, that is not sent yet."""
        given = {"name": name, "labels": labels, "annotations": annotations, "namespace": self.namespace, **(metadata or {})}
        known = {key: value for key, value in given.items() if value is not None}
        return {"apiVersion": self.resource.api_version, "kind": self.resource.kind, "metadata": known, **fields}

    def create(self, obj, sub=None, **query):
        return self.api.call("POST", self.path(obj["metadata"]["name"] if sub else None, sub), obj, **query)

    def new(self, name=None, **fields):
        return self.create(self.make(name, **fields))

    def get(self, name, sub=None, **query):
        return self.api.call("GET", self.path(name, sub), **query)

    def list(self, **query):
        return self.api.call("GET", self.path(), **query)

    def items(self, **query):
        return self.list(**query)["items"]

    def names(self, **query):
        return [item["metadata"]["name"] for item in self.items(**query)]

    def replace(self, obj, sub=None, **query):
        return self.api.call("PUT", self.path(obj["metadata"]["name"], sub), obj, **query)

    def change(self, name, mutate, sub=None):
        """Get, change, put, again after a conflict: what clients do."""
        while True:
            obj = self.get(name)
            mutate(obj)
            try:
                return self.replace(obj, sub)
            except Refused as refused:
                if refused.code != 409:
                    raise

    def patch(self, name, patch, kind="merge", sub=None, **query):
        return self.api.call("PATCH", self.path(name, sub), patch, kind=PATCHES[kind], **query)

    def delete(self, name, **options):
        return self.api.call("DELETE", self.path(name), {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    def delete_all(self, **query):
        return self.api.call("DELETE", self.path(), **query)

    def gone(self, name):
        """Whether a get of it answers 404."""
        try:
            self.get(name)
        except Refused as refused:
            if refused.code == 404:
                return True
            raise
        return False

    def until(self, name, truth, what="", seconds=PATIENCE_S):
        """The object once `truth(object)`."""
        seen = {}

        def asked():
            seen["last"] = self.get(name)
            return truth(seen["last"])

        try:
            until(asked, what or f"{self.resource.kind} {name}", seconds)
        except AssertionError as error:
            error.add_note(json.dumps(seen.get("last")))
            raise
        return seen["last"]

    def until_gone(self, name, seconds=PATIENCE_S):
        until(lambda: self.gone(name), f"{self.resource.kind} {name} is gone", seconds)

    def watch(self, **query) -> Watch:
        return self.api.watch(self.path(), **query)


class Watch:
    """A watch's events, each waited for at most PATIENCE_S."""

    def __init__(self, connection, reply, path) -> None:
        self._connection, self._reply, self._path = connection, reply, path

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()

    def __iter__(self):
        while True:
            try:
                line = self._reply.readline()
            except TimeoutError as error:
                raise AssertionError(f"watch {self._path}: no event within {PATIENCE_S} s") from error
            if not line:
                return
            event = json.loads(line)
            yield event["type"], event["object"]

    def next(self):
        for event in self:
            return event
        raise AssertionError(f"watch {self._path} has ended")

    def expect(self, kind, truth=lambda obj: True):
        """The next event of that type whose object is so; those before it are passed over."""
        passed = []
        for seen, obj in self:
            if seen == kind and truth(obj):
                return obj
            passed.append((seen, obj["metadata"].get("name")))
        raise AssertionError(f"watch {self._path} has ended after {passed}")

    def silent(self, seconds=0.3):
        """Whether nothing comes within that time."""
        self._connection.sock.settimeout(seconds)
        try:
            line = self._reply.readline()
        except TimeoutError:
            return True
        raise AssertionError(f"watch {self._path}: {line!r}")
