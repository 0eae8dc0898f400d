"""Secrets that ask for a token of a service account get one, keep it, and end with the account; against the real API server."""

from __future__ import annotations

import asyncio
import base64

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.client.factory import InformerFactory
from atoll.client.resources import SECRETS, SERVICE_ACCOUNTS, Resource
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all
from atoll.controllers.tokens import TokenController

REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", False, "TokenReview")


async def wait(condition):
    for _ in range(500):
        if found := await condition():
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it has not come about")


def test_a_secret_gets_its_token(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "sa.key").write_bytes(pem)

    async def scenario():
        server = ApiServer(ApiServerConfig(store=tmp_path / "store.db", service_account_key=tmp_path / "sa.key"))
        await server.start()
        client = InProcessClient(server)
        informers = InformerFactory(client)
        running = run_all(client, Config(root_ca="pem"), informers=informers, controllers=(TokenController,))
        tasks = [asyncio.create_task(informers.run()), asyncio.create_task(running)]

        async def named(name):
            found = [item for item in (await client.list(SECRETS, "default"))["items"] if item["metadata"]["name"] == name]
            return found[0] if found else None

        async def filled():
            found = await named("s")
            return found if found and "token" in (found.get("data") or {}) else None

        async def gone():
            return await named("s") is None and await named("t") is None

        try:
            account = await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot"}}, "default")
            kind = {"type": "kubernetes.io/service-account-token"}
            mark = {"kubernetes.io/service-account.name": "robot"}
            await client.create(SECRETS, {"metadata": {"name": "s", "annotations": mark}, **kind}, "default")
            secret = await wait(filled)
            assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
            data = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
            assert (data["namespace"], data["ca.crt"]) == ("default", "pem")
            status = (await client.create(REVIEWS, {"spec": {"token": data["token"]}}))["status"]
            assert status["user"]["username"] == "system:serviceaccount:default:robot"
            orphan = {"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "none"}}, **kind}
            await client.create(SECRETS, orphan, "default")
            await client.delete(SERVICE_ACCOUNTS, "robot", "default")
            await wait(gone)
            status = (await client.create(REVIEWS, {"spec": {"token": data["token"]}}))["status"]
            assert not status.get("authenticated")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.close()

    asyncio.run(scenario())
