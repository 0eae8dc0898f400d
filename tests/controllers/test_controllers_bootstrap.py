"""Bootstrap tokens sign the cluster's public configuration, as long as they are there; against the real API server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.client.factory import InformerFactory
from atoll.client.resources import CONFIG_MAPS, SECRETS
from atoll.controllers.base import Config
from atoll.controllers.certificates.bootstrapsigner import BootstrapSigner
from atoll.controllers.registry import run_all

KEY = "0123456789abcdef"


def token(name, **data):
    """A token's secret as kubeadm makes it."""
    given = {"token-id": name, "token-secret": KEY, "usage-bootstrap-signing": "true", **data}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in given.items()}
    return {"metadata": {"name": f"bootstrap-token-{name}"}, "type": "bootstrap.kubernetes.io/token", "data": encoded}


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def verifies(signature, content):
    """As who joins does: the payload put back between the dots."""
    header, payload, digest = signature.split(".")
    assert payload == ""
    assert json.loads(decoded(header)) == {"alg": "HS256", "kid": "abcdef"}
    body = base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")
    return decoded(digest) == hmac.digest(KEY.encode(), f"{header}.{body}".encode(), hashlib.sha256)


def test_tokens_sign_cluster_info(tmp_path):
    async def scenario():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db"))
        await server.start()
        client = InProcessClient(server)
        informers = InformerFactory(client)
        running = run_all(client, Config(), informers=informers, controllers=(BootstrapSigner,))
        tasks = [asyncio.create_task(informers.run()), asyncio.create_task(running)]

        async def data(*names, other_than=""):
            """Of cluster-info, once it has these names, and values other than that one."""
            async with asyncio.timeout(10):
                while True:
                    found = (await client.get(CONFIG_MAPS, "cluster-info", "kube-public")).get("data") or {}
                    if set(found) == set(names) and other_than not in found.values():
                        return found
                    await asyncio.sleep(0.01)

        try:
            for secret in (
                token("abcdef"),
                token("mute01", **{"usage-bootstrap-signing": "false"}),
                token("past01", expiration="2020-01-01T00:00:00Z"),
                {**token("other1"), "metadata": {"name": "bootstrap-token-named2"}},
            ):
                await client.create(SECRETS, secret, "kube-system")
            await client.create(SECRETS, token("place1"), "default")
            info = {"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "first", "jws-kubeconfig-gone01": "x"}}
            await client.create(CONFIG_MAPS, info, "kube-public")
            found = await data("kubeconfig", "jws-kubeconfig-abcdef")
            assert verifies(found["jws-kubeconfig-abcdef"], "first")
            await client.patch(CONFIG_MAPS, "cluster-info", {"data": {"kubeconfig": "second"}}, "kube-public")
            again = await data("kubeconfig", "jws-kubeconfig-abcdef", other_than=found["jws-kubeconfig-abcdef"])
            assert verifies(again["jws-kubeconfig-abcdef"], "second")
            await client.delete(SECRETS, "bootstrap-token-abcdef", "kube-system")
            assert await data("kubeconfig") == {"kubeconfig": "second"}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.close()

    asyncio.run(scenario())
