"""Cluster IPs and node ports given out through the store: never twice, by however many servers, and free again whatever was killed."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import IPv4Network

import pytest

from atoll.apiserver import ApiServer, ApiServerConfig, InProcessClient
from atoll.apiserver.claims import held_by
from atoll.apiserver.reclaim import GRACE_S, reclaim
from atoll.client.resources import IP_ADDRESSES, NAMESPACES, SERVICE_CIDRS, SERVICES
from atoll.errors import StatusError, Unavailable
from etcd_harness import ETCD, etcd

SMALL = {"service_cidr": IPv4Network("10.96.0.0/27"), "node_ports": range(30_000, 30_020)}


def service(name, **spec):
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


@contextlib.asynccontextmanager
async def servers(location, count=1, **config):
    started = []
    try:
        for _ in range(count):
            started.append(ApiServer(ApiServerConfig(store=location, **{**SMALL, **config})))
            await started[-1].start()
        yield [InProcessClient(each) for each in started]
    finally:
        for each in started:
            await each.close()


def claims_of(client):
    return client._server.api.core.addresses.claims


async def taken(client):
    """What is claimed, by whom."""
    await client._server.api.core.store.settle()
    return {claim.what: "/".join(claim.owner) for claim in await claims_of(client).all()}


async def refused(wanted):
    with pytest.raises(StatusError) as error:
        await wanted
    return error.value


def test_addresses_are_objects_and_go_with_their_service(tmp_path):
    async def scenario():
        async with servers(tmp_path / "s.db") as (client,):
            made = await client.create(SERVICES, service("a", type="NodePort"), "default")
            address, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
            found = await client.get(IP_ADDRESSES, address)
            assert found["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "a"}
            assert found["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
            assert await taken(client) == {address: "default/a", ("TCP", port): "default/a"}
            changed = await client.patch(SERVICES, "a", {"spec": {"type": "ClusterIP"}}, "default")
            assert "nodePort" not in changed["spec"]["ports"][0]
            assert await taken(client) == {address: "default/a"}
            await client.patch(SERVICES, "a", {"spec": {"type": "ExternalName", "externalName": "x.test"}}, "default")
            assert await taken(client) == {}
            again = await client.patch(SERVICES, "a", {"spec": {"type": "ClusterIP", "externalName": None}}, "default")
            assert list(await taken(client)) == [again["spec"]["clusterIP"]]
            await client.delete(SERVICES, "a", "default")
            assert await taken(client) == {}
            assert (await client.get(SERVICE_CIDRS, "kubernetes"))["spec"] == {"cidrs": ["10.96.0.0/27"]}

    asyncio.run(scenario())


def test_what_is_refused_or_only_tried_claims_nothing(tmp_path):
    async def scenario():
        async with servers(tmp_path / "s.db") as (client,):
            await client.create(
                SERVICES, service("a", type="NodePort", clusterIP="10.96.0.5", ports=[{"port": 1, "nodePort": 30_001}]), "default"
            )
            before = await taken(client)
            error = await refused(client.create(SERVICES, service("b", clusterIP="10.96.0.5"), "default"))
            assert (error.code, "provided IP is already allocated" in error.message) == (422, True)
            clash = service("b", type="NodePort", ports=[{"port": 1}, {"name": "x", "port": 2, "nodePort": 30_001}])
            clash["spec"]["ports"][0]["name"] = "w"
            assert "provided port is already allocated" in (await refused(client.create(SERVICES, clash, "default"))).message
            assert "already exists" in (await refused(client.create(SERVICES, service("a"), "default"))).message
            assert await taken(client) == before

    asyncio.run(scenario())


def test_one_who_sees_a_service_go_may_make_it_again_at_once(tmp_path):
    async def scenario():
        async with servers(tmp_path / "s.db") as (client,):
            wanted = service("a", type="NodePort", clusterIP="10.96.0.5", ports=[{"port": 1, "nodePort": 30_001}])
            made = await client.create(SERVICES, wanted, "default")
            since = made["metadata"]["resourceVersion"]

            async def again():
                async for kind, _ in client.watch(SERVICES, "default", resource_version=since):
                    if kind == "DELETED":
                        break
                return await client.create(SERVICES, wanted, "default")

            watching = asyncio.create_task(again())
            await client.delete(SERVICES, "a", "default")
            assert (await watching)["spec"]["clusterIP"] == "10.96.0.5"
            assert await taken(client) == {"10.96.0.5": "default/a", ("TCP", 30_001): "default/a"}

    asyncio.run(scenario())


def test_a_full_range_is_told_and_another_one_may_be_added(tmp_path):
    async def scenario():
        async with servers(tmp_path / "s.db", service_cidr=IPv4Network("10.96.0.0/29")) as (client,):
            made = [await client.create(SERVICES, service(f"s{number}"), "default") for number in range(6)]
            assert len({each["spec"]["clusterIP"] for each in made}) == 6
            assert "range 10.96.0.0/29 is full" in (await refused(client.create(SERVICES, service("x"), "default"))).message
            await client.create(SERVICE_CIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/24"]}})
            more = await client.create(SERVICES, service("x"), "default")
            assert more["spec"]["clusterIP"].startswith("10.97.0.")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("resource", "name", "spec", "told"),
    [
        (SERVICE_CIDRS, "x", {}, "spec.cidrs: Required value: at least one CIDR required"),
        (SERVICE_CIDRS, "x", {"cidrs": ["10.0.0.1/8"]}, "must be a valid CIDR value"),
        (SERVICE_CIDRS, "x", {"cidrs": ["10.0.0.0/24", "10.0.1.0/24"]}, "may specify no more than one IP for each IP family"),
        (SERVICE_CIDRS, "x", {"cidrs": ["10.0.0.0/24", "fd00::/64", "fd01::/64"]}, "may only hold up to 2 values"),
        (IP_ADDRESSES, "nine", {"parentRef": {"resource": "services", "name": "a"}}, "must be a valid IP address"),
        (IP_ADDRESSES, "fd00::0", {"parentRef": {"resource": "services", "name": "a"}}, "must be in canonical form (fd00::)"),
        (IP_ADDRESSES, "10.96.0.9", {}, "spec.parentRef: Required value"),
        (IP_ADDRESSES, "10.96.0.9", {"parentRef": {"name": "a"}}, "spec.parentRef.resource: Required value"),
    ],
)
def test_ranges_and_addresses_that_are_none(shared, resource, name, spec, told):
    error = shared(resource, {"metadata": {"name": name}, "spec": spec})
    assert (error.code, told in error.message) == (422, True), error.message


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """How a server refuses a new object."""
    runner = asyncio.Runner()
    server = ApiServer(ApiServerConfig(store=tmp_path_factory.mktemp("shared") / "s.db"))
    runner.run(server.start())
    yield lambda resource, obj: runner.run(refused(InProcessClient(server).create(resource, obj)))
    runner.run(server.close())
    runner.close()


def test_a_restart_mends_what_a_kill_left(tmp_path):
    async def left_behind(client):
        """As by kill -9: a claim without its service, a service without its claims (as older stores have them)."""
        made = await client.create(SERVICES, service("a", type="NodePort", ports=[{"port": 1, "nodePort": 30_000}]), "default")
        claims = claims_of(client)
        for what in ("10.96.0.7", ("TCP", 30_007), ("UDP", 30_007)):
            assert await claims.make(what, {"metadata": {"namespace": "default", "name": "never"}}) is not None
        await claims.release(await claims.find(held_by(made), made))
        return made

    async def scenario():
        async with servers(tmp_path / "s.db") as (client,):
            made = await left_behind(client)
        async with servers(tmp_path / "s.db") as (client,):
            assert await taken(client) == dict.fromkeys(held_by(made), "default/a")
            again = await client.create(SERVICES, service("b", clusterIP="10.96.0.7"), "default")
            assert again["spec"]["clusterIP"] == "10.96.0.7"

    asyncio.run(scenario())


def test_a_write_of_unknown_end_keeps_its_claims(tmp_path):
    async def scenario():
        async with servers(tmp_path / "s.db") as (client,):
            core = client._server.api.core
            write = core.store.write

            async def broken(key, value, **options):
                if "/services/" in key:
                    await write(key, value, **options)
                    raise Unavailable("no answer")
                return await write(key, value, **options)

            core.store.write = broken
            with pytest.raises(Unavailable):
                await client.create(SERVICES, service("a"), "default")
            core.store.write = write
            [address] = await taken(client)
            assert (await client.get(SERVICES, "a", "default"))["spec"]["clusterIP"] == address

    asyncio.run(scenario())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.mark.skipif(ETCD is None, reason="needs Debian's etcd-server and etcd-client")
def test_two_servers_never_give_the_same(server):
    async def scenario():
        async with servers(server.location, 2) as clients:
            await clients[0].create(NAMESPACES, {"metadata": {"name": "n"}})
            pairs = [(client, f"{which}{number}") for number in range(10) for which, client in zip("ab", clients, strict=True)]
            made = await asyncio.gather(*(client.create(SERVICES, service(name, type="NodePort"), "n") for client, name in pairs))
            assert len({each["spec"]["clusterIP"] for each in made}) == len(made) == 20
            assert len({each["spec"]["ports"][0]["nodePort"] for each in made}) == 20
            full = await refused(clients[0].create(SERVICES, service("x", type="NodePort"), "n"))
            assert "failed to allocate a nodePort" in full.message
            held = await taken(clients[0])
            free = next(str(each) for each in SMALL["service_cidr"].hosts() if str(each) not in held)
            wanted = (client.create(SERVICES, service(f"same{index}", clusterIP=free), "n") for index, client in enumerate(clients))
            results = await asyncio.gather(*wanted, return_exceptions=True)
            [error] = [each for each in results if isinstance(each, StatusError)]
            assert "provided IP is already allocated" in error.message
            await clients[1].delete(SERVICES, "a0", "n")
            number = next(each["spec"]["ports"][0]["nodePort"] for each in made if each["metadata"]["name"] == "a0")
            reused = await clients[0].create(SERVICES, service("x", type="NodePort"), "n")
            assert reused["spec"]["ports"][0]["nodePort"] == number
            await leaves_the_young_alone(*clients)

    asyncio.run(scenario())


async def leaves_the_young_alone(one, two):
    """What the other server has claimed and is about to write."""
    made = await claims_of(one).make(("SCTP", 30_000), {"metadata": {"namespace": "n", "name": "coming"}})
    core = two._server.api.core
    await reclaim(core, claims_of(two), GRACE_S)
    assert ("SCTP", 30_000) in await taken(two)
    core.clock = lambda: made.made + GRACE_S + 1
    await reclaim(core, claims_of(two), GRACE_S)
    assert ("SCTP", 30_000) not in await taken(two)
