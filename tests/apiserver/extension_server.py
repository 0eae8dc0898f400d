"""A small API server of a group of its own, as others write them: TLS, users told by a front proxy, lists, watches, an upgrade."""

from __future__ import annotations

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GROUP, VERSION = "wardle.example.com", "v1alpha1"
API = f"{GROUP}/{VERSION}"
GVK = {"group": GROUP, "version": VERSION, "kind": "Flunder"}
RESOURCES = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": API,
    "resources": [
        {
            "name": "flunders",
            "singularName": "flunder",
            "namespaced": True,
            "kind": "Flunder",
            "verbs": ["create", "delete", "get", "list", "watch"],
            "shortNames": ["fl"],
        },
        {"name": "flunders/status", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]},
    ],
}
OPENAPI = {
    "openapi": "3.0.0",
    "info": {"title": "wardle", "version": "1"},
    "paths": {f"/apis/{API}/namespaces/{{namespace}}/flunders": {"get": {"x-kubernetes-group-version-kind": GVK, "responses": {}}}},
    "components": {
        "schemas": {
            "Flunder": {
                "type": "object",
                "description": "Nobody knows what a flunder is.",
                "properties": {"kind": {"type": "string"}, "apiVersion": {"type": "string"}},
                "x-kubernetes-group-version-kind": [GVK],
            }
        }
    },
}


class ExtensionServer(ThreadingHTTPServer):
    """`seen` holds the headers of each request by its path; `broken` makes it refuse discovery."""

    daemon_threads = True

    def __init__(self, files: Path, proxies: Path, host: str) -> None:
        self.seen: list[tuple[str, str, dict[str, list[str]]]] = []
        self.flunders: dict[str, dict[str, Any]] = {}
        self.changed = threading.Condition()
        self.broken = False
        self.closing = False
        super().__init__((host, 0), _Handler)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files / "cert.pem", files / "key.pem")
        self._context.load_verify_locations(proxies)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._thread = threading.Thread(target=self.serve_forever, name="extension API server")
        self._thread.start()

    def get_request(self):
        sock, address = super().get_request()
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request, client_address):
        """A client that does not trust us, or has gone."""

    def asked(self, path: str) -> dict[str, list[str]]:
        """The headers of the last request for a path."""
        return next(headers for _, each, headers in reversed(self.seen) if each == path)

    def close(self) -> None:
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ExtensionServer

    def do_GET(self):
        path, _, query = self.path.partition("?")
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        headers["common-name"] = [value for entry in self.connection.getpeercert()["subject"] for _, value in entry]
        self.server.seen.append((self.command, path, headers))
        parts = path.strip("/").split("/")
        base = f"apis/{API}"
        if path == f"/{base}":
            self.answer({}, 500) if self.server.broken else self.answer(RESOURCES)
        elif path == "/openapi/v3":
            self.answer({"paths": {base: {"serverRelativeURL": f"/openapi/v3/{base}?hash=abc"}}})
        elif path == f"/openapi/v3/{base}":
            self.answer(OPENAPI)
        elif self.headers.get("upgrade") == "echo":
            self.echo()
        elif "watch=" in query:
            self.watch()
        elif parts[-1] == "flunders":
            metadata = {"resourceVersion": "1"}
            inside = parts[parts.index("namespaces") + 1] if "namespaces" in parts else None
            items = [each for each in self.server.flunders.values() if inside in (None, each["metadata"].get("namespace"))]
            self.answer({"kind": "FlunderList", "apiVersion": API, "metadata": metadata, "items": items})
        else:
            self.found(parts[-1])

    def do_POST(self):
        self.server.seen.append((self.command, self.path.partition("?")[0], {}))
        given = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = given["metadata"]["name"]
        with self.server.changed:
            given["metadata"] |= {"uid": name, "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
            self.server.flunders[name] = given
            self.server.changed.notify_all()
        self.answer(given, 201)

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name == "flunders":
            why = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "MethodNotAllowed", "code": 405, "message": "no"}
            self.answer(why, 405)
        else:
            self.found(name, take=True)

    def found(self, name, *, take=False):
        found = self.server.flunders.pop(name, None) if take else self.server.flunders.get(name)
        gone = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": "NotFound",
            "code": 404,
            "message": f"no flunder {name}",
        }
        self.answer(found or gone, 200 if found else 404)

    def watch(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        told: set[str] = set()
        with self.server.changed:
            while not self.server.closing:
                for name, obj in self.server.flunders.items():
                    if name not in told:
                        line = json.dumps({"type": "ADDED", "object": obj}).encode() + b"\n"
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                        told.add(name)
                self.server.changed.wait(1)

    def echo(self):
        self.send_response(101)
        self.send_header("Upgrade", "echo")
        self.send_header("Connection", "Upgrade")
        self.end_headers()
        while piece := self.connection.recv(1024):
            self.connection.sendall(piece.upper())
        self.close_connection = True

    def answer(self, obj, status=200):
        body = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
