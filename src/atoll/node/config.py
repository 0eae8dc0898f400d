"""What a node was told when it joined: where the API is, who the node is there, what its pods are told.

Kept in `node.json` of the instance, so that a node daemon that was restarted finds its cluster again by itself.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from atoll.client.kubeconfig import Access
from atoll.config import Instance
from atoll.errors import InvalidInput

KUBELET_PORT = 10_250
# JSON name in the join request, our field, whether it must be there.
_FIELDS = (
    ("server", "server", True),
    ("ca", "ca", True),
    ("certificate", "certificate", True),
    ("key", "key", True),
    ("servingCertificate", "serving_certificate", True),
    ("servingKey", "serving_key", True),
    ("name", "name", True),
    ("address", "address", True),
    ("serviceCIDR", "service_cidr", False),
    ("clusterDNS", "cluster_dns", False),
    ("clusterDomain", "cluster_domain", False),
    ("controlPlaneLog", "control_plane_log", False),
)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Certificates and keys are PEM. `control_plane_log` is empty on a node that does not run the control plane."""

    server: str
    ca: str
    certificate: str
    key: str
    serving_certificate: str
    serving_key: str
    name: str
    address: str
    service_cidr: str = "10.96.0.0/12"
    cluster_dns: str = ""
    cluster_domain: str = "cluster.local"
    control_plane_log: str = ""
    kubelet_port: int = KUBELET_PORT

    @classmethod
    def from_request(cls, body: Any) -> NodeConfig:
        """Of the body of POST /atoll/node/join. Raises InvalidInput naming the field that is missing or no string."""
        if not isinstance(body, Mapping):
            raise InvalidInput("the body of a join must be a JSON object")
        values: dict[str, Any] = {}
        for name, field, required in _FIELDS:
            value = body.get(name)
            if value is None and not required:
                continue
            if not isinstance(value, str) or (required and not value):
                raise InvalidInput(f"the join request needs {name}, a string")
            values[field] = value
        port = body.get("kubeletPort", KUBELET_PORT)
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise InvalidInput("kubeletPort of the join request must be a port")
        return cls(**values, kubelet_port=port)

    def request(self) -> dict[str, Any]:
        return {name: getattr(self, field) for name, field, _ in _FIELDS} | {"kubeletPort": self.kubelet_port}

    def access(self) -> Access:
        return Access(self.server, self.ca.encode(), self.certificate.encode(), self.key.encode())

    def serving_context(self) -> ssl.SSLContext:
        """TLS of the kubelet's API: a client certificate of the cluster's authority is a must."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        load_pair(made, self.serving_certificate.encode(), self.serving_key.encode())
        made.set_alpn_protocols(["http/1.1"])
        made.load_verify_locations(cadata=self.ca)
        made.verify_mode = ssl.CERT_REQUIRED
        return made

    def save(self, instance: Instance) -> None:
        path = state_file(instance)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(self.request()))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    @classmethod
    def load(cls, instance: Instance) -> NodeConfig | None:
        """None where the node has joined no cluster. Raises InvalidInput where the file cannot be read."""
        path = state_file(instance)
        try:
            return cls.from_request(orjson.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"{path} cannot be read ({error}): remove it, and start the cluster again") from error


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """OpenSSL's binding reads only files; one in memory leaves no key on the disk."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except ssl.SSLError as error:
        raise InvalidInput(f"the kubelet's certificate and key do not fit together: {error.reason}") from error
    finally:
        os.close(descriptor)


def state_file(instance: Instance) -> Path:
    return instance.home / "node.json"
