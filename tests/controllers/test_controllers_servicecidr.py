"""ServiceCIDRs against the real API server: ready at once, and gone only when nothing is taken from them."""

import asyncio
from contextlib import suppress
from ipaddress import IPv4Network

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.client.resources import SERVICE_CIDRS, SERVICES
from atoll.controllers.base import Config
from atoll.controllers.registry import run_all
from atoll.controllers.servicecidr import FINALIZER, ServiceCIDRController
from atoll.errors import StatusError


async def until(client, name, holds):
    """The range as it is once `holds(range)`; None stands for one that has gone."""
    async with asyncio.timeout(10):
        while True:
            found = None
            with suppress(StatusError):
                found = await client.get(SERVICE_CIDRS, name)
            if holds(found):
                return found
            await asyncio.sleep(0.01)


def ready(found):
    return next(((each["status"], each["message"]) for each in ((found or {}).get("status") or {}).get("conditions") or ()), ("", ""))


def test_a_range_is_ready_and_stays_while_it_is_used(tmp_path):
    async def scenario():
        server = ApiServer(ApiServerConfig(store=tmp_path / "s.db", service_cidr=IPv4Network("10.96.0.0/29")))
        await server.start()
        client = InProcessClient(server)
        running = asyncio.create_task(run_all(client, Config(), controllers=(ServiceCIDRController,)))
        try:
            await until(client, "kubernetes", lambda found: ready(found)[0] == "True")
            await client.create(SERVICE_CIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}})
            found = await until(client, "more", lambda found: ready(found)[0] == "True")
            assert found["metadata"]["finalizers"] == [FINALIZER]
            wanted = {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.97.0.7", "ports": [{"port": 1}]}}
            await client.create(SERVICES, wanted, "default")
            await client.delete(SERVICE_CIDRS, "more")
            told = ready(await until(client, "more", lambda found: ready(found)[0] == "False"))
            assert told[1].startswith("There are still IPAddresses referencing the ServiceCIDR")
            for number in range(6):
                await client.create(SERVICES, {"metadata": {"name": f"f{number}"}, "spec": {"ports": [{"port": 1}]}}, "default")
            with suppress(StatusError):
                made = await client.create(SERVICES, {"metadata": {"name": "over"}, "spec": {"ports": [{"port": 1}]}}, "default")
                raise AssertionError(f"{made['spec']['clusterIP']} is of a range that is going")
            await client.delete(SERVICES, "s", "default")
            await until(client, "more", lambda found: found is None)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await server.close()

    asyncio.run(scenario())
