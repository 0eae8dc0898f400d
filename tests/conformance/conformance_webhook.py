"""A webhook server as the public tests deploy one: its paths deny, mark and wait. Here it is a thread, reached by URL."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_S = 1.5  # longer than the shortest timeout of a webhook, 1 s


def _added(data):
    """The steps of the chain: who finds one's mark adds the next."""
    steps = {"mutation-start": "mutation-stage-1", "mutation-stage-1": "mutation-stage-2"}
    return [
        {"op": "add", "path": f"/data/{new}", "value": "yes"} for old, new in steps.items() if data.get(old) == "yes" and new not in data
    ]


def _deny(request):
    return {"allowed": False, "status": {"reason": "the request is denied", "message": "this webhook denies all requests"}}


def _allow(request):
    return {"allowed": True}


def _slow(request):
    time.sleep(SLOW_S)
    return {"allowed": True}


def _data(request):
    """Denies what carries unwanted data."""
    obj = request.get("object") or request.get("oldObject") or {}
    name = obj.get("metadata", {}).get("name", "")
    if (obj.get("data") or {}).get("webhook-e2e-test") == "webhook-disallow":
        return {
            "allowed": False,
            "status": {"reason": "the configmap contains unwanted key and value", "message": "unwanted key and value"},
        }
    if request["operation"] == "DELETE" and (obj.get("data") or {}).get("mutation-start") == "keep":
        return {"allowed": False, "status": {"message": f"{name} cannot be deleted"}}
    return {"allowed": True}


def _attach(request):
    return {"allowed": False, "status": {"message": "attaching to pod 'to-be-attached-pod' is not allowed"}}


def _mutate_data(request):
    return {"allowed": True, "patch": _added((request.get("object") or {}).get("data") or {})}


def _mutate_pod(request):
    container = {"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}
    return {"allowed": True, "patch": [{"op": "add", "path": "/spec/initContainers", "value": [container]}]}


def _label(request):
    return {"allowed": True, "patch": [{"op": "add", "path": "/metadata/labels", "value": {"touched": "yes"}}]}


ANSWERS = {
    "/always-deny": _deny,
    "/always-allow": _allow,
    "/slow": _slow,
    "/data": _data,
    "/pods/attach": _attach,
    "/mutating-data": _mutate_data,
    "/mutating-pods": _mutate_pod,
    "/label": _label,
}


class Hooks:
    """Serves until `close`; `heard` are the requests."""

    def __init__(self, certificate, key, ca) -> None:
        self.heard = heard = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                review = json.loads(self.rfile.read(int(self.headers["content-length"])))
                heard.append(review["request"])
                response = {"uid": review["request"]["uid"], **ANSWERS[self.path.partition("?")[0]](review["request"])}
                if "patch" in response:
                    response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(response["patch"]).encode()).decode()}
                body = json.dumps({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True  # who asked has not waited

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self._bundle = base64.b64encode(ca.read_bytes()).decode()

    def at(self, path):
        """A clientConfig."""
        return {"url": f"https://127.0.0.1:{self._server.server_port}{path}", "caBundle": self._bundle}

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
