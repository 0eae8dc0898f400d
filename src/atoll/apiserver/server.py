"""The API server put together: store, caches, gate, pipeline; started, served and closed as one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.apiserver.admission.chain import AdmissionChain
from atoll.apiserver.admission.policies.status import tell_type_checks
from atoll.apiserver.aggregation.aggregator import Aggregator
from atoll.apiserver.allocate import ServiceAddresses
from atoll.apiserver.api import Api
from atoll.apiserver.audit.log import AuditLog
from atoll.apiserver.audit.policy import Policy
from atoll.apiserver.audit.record import Auditor
from atoll.apiserver.auth import settings
from atoll.apiserver.auth.authenticate import Authenticator
from atoll.apiserver.auth.authorize import Authorizer
from atoll.apiserver.auth.bootstraptokens import BootstrapTokens
from atoll.apiserver.auth.jwt import TokenSigner
from atoll.apiserver.auth.reviews import Reviews
from atoll.apiserver.auth.serviceaccounts import ServiceAccountTokens
from atoll.apiserver.bootstrap import bootstrap, keep_service, publish_authentication, publish_service, publish_service_range
from atoll.apiserver.claims import Claims
from atoll.apiserver.config import ApiServerConfig
from atoll.apiserver.core import Core
from atoll.apiserver.customresources.registrar import CustomResources
from atoll.apiserver.eventexpiry import expire_events
from atoll.apiserver.exchange import BODY_MAX
from atoll.apiserver.fairness.gate import Fairness
from atoll.apiserver.fairness.status import tell_dangling
from atoll.apiserver.machinery.caches import Caches
from atoll.apiserver.machinery.discovery import Discovery
from atoll.apiserver.machinery.kind import KindRegistry
from atoll.apiserver.machinery.openapi import OpenApi
from atoll.apiserver.metrics import Metrics
from atoll.apiserver.pipeline import Pipeline
from atoll.apiserver.reclaim import GRACE_S, keep_reclaiming, reclaim
from atoll.apiserver.site import Site
from atoll.apiserver.streams.proxy import Streams
from atoll.http import Limits, Request, Response, Server
from atoll.store import Store, open_store

if TYPE_CHECKING:
    from atoll.apiserver.auth.frontproxy import FrontProxy


class ApiServer:
    """`await start()`, then `handler` serves requests and `api` in-process calls; `await close()` ends both.

    Raises InUse from start when another process owns the store.
    """

    def __init__(self, config: ApiServerConfig) -> None:
        self.config = config
        self._store: Store | None = None
        self._pipeline: Pipeline | None = None
        self._api: Api | None = None
        self._authorizer: Authorizer | None = None
        self._auditor: Auditor | None = None
        self._aggregator: Aggregator | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def api(self) -> Api:
        assert self._api is not None, "the API server has not been started"
        return self._api

    @property
    def authorizer(self) -> Authorizer:
        assert self._authorizer is not None, "the API server has not been started"
        return self._authorizer

    @property
    def aggregator(self) -> Aggregator:
        assert self._aggregator is not None, "the API server has not been started"
        return self._aggregator

    async def start(self) -> None:
        config = self.config
        registry = KindRegistry.builtin()
        store = self._store = await open_store(config.store, compact_interval=config.compact_interval_s, tls=config.etcd_tls)
        caches = Caches(store)
        await caches.load(registry)
        admission = AdmissionChain()
        claims = Claims(registry, caches, store)
        objects = _objects(registry, caches, "", "services"), _objects(registry, caches, "networking.k8s.io", "servicecidrs")
        core = Core(registry, store, caches, admission, ServiceAddresses(claims, *objects, config.service_cidr, config.node_ports))
        authorizer = self._authorizer = Authorizer(core)
        admission.attach(core, authorizer)
        tokens = None
        if config.service_account_key is not None:
            signer = TokenSigner.load(config.service_account_key)
            tokens = ServiceAccountTokens(core, signer, config.service_account_issuer, core.clock)
        authentication = settings.state(config.authentication) if config.authentication else None
        authenticator = Authenticator(
            config.tokens,
            tokens,
            BootstrapTokens(core, core.clock),
            settings.AuthenticationSettings.load(config.authentication, core.clock) if config.authentication else None,
            _front_proxy(config),
        )
        self._api = Api(core, Reviews(authenticator, authorizer), tokens)
        address = f"{config.advertise_address}:{config.advertise_port or config.port}"
        fairness = Fairness(core, config.max_in_flight)
        self._auditor = _auditor(config)
        metrics = Metrics(registry, caches, fairness, core.clock())
        aggregator = self._aggregator = Aggregator(self._api, config.proxy_client)
        discovery, openapi = Discovery(registry, address, aggregator.foreign), OpenApi(registry)
        site = Site(discovery, openapi, tokens, {"store": lambda: store.problem}, metrics)
        self._pipeline = Pipeline(
            registry, self._api, authenticator, authorizer, site, Streams(core, config), metrics, fairness, aggregator, self._auditor
        )

        def forget(group: str, version: str) -> None:
            discovery.forget()
            openapi.forget(group, version)
            aggregator.look_again()

        custom = CustomResources(self._api, forget)
        await custom.load()
        await reclaim(core, claims, 0 if isinstance(config.store, Path) else GRACE_S)  # a file has one owner, and that is us
        await bootstrap(self._api)
        await publish_service_range(self._api, config.service_cidr)
        await publish_authentication(self._api, config)
        aggregator.start(discovery, openapi)
        self._tasks.append(asyncio.create_task(custom.run(), name="custom resources"))
        self._tasks.append(asyncio.create_task(aggregator.run(), name="API services"))
        self._tasks.append(asyncio.create_task(keep_reclaiming(core, claims), name="service addresses"))
        self._tasks.append(asyncio.create_task(tell_dangling(self._api), name="flow schemas"))
        self._tasks.append(asyncio.create_task(tell_type_checks(self._api), name="admission policies"))
        if config.authentication is not None:
            following = settings.follow(config.authentication, authentication, core.clock, authenticator.use)
            self._tasks.append(asyncio.create_task(following, name="authentication configuration"))
        self._tasks.append(asyncio.create_task(expire_events(self._api, config.event_ttl_s), name="event expiry"))

    async def handler(self, request: Request) -> Response | None:
        assert self._pipeline is not None, "the API server has not been started"
        return await self._pipeline(request)

    async def announce(self, port: int) -> None:
        """Point the service `kubernetes` at the port this server is reached on, now and whenever it has been deleted or changed."""
        config = self.config
        where = str(config.service_cidr[1]), config.advertise_address, config.advertise_port or port
        await publish_service(self.api, *where)
        self._tasks.append(asyncio.create_task(keep_service(self.api, *where), name="service kubernetes"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._aggregator is not None:
            await self._aggregator.close()
        if self._auditor is not None:
            self._auditor.close()
        if self._store is not None:
            await self._store.close()


def _objects(registry: KindRegistry, caches: Caches, group: str, plural: str) -> Callable[[], list[Mapping[str, Any]]]:
    """What is stored of a kind, whenever it is asked for."""
    kind = registry.get(group, "v1", plural)
    assert kind is not None
    cacher = caches.of(kind)
    return lambda: [item.obj for item in cacher.items()]


def _auditor(config: ApiServerConfig) -> Auditor | None:
    if config.audit_policy is None or config.audit_log is None:
        return None
    file = AuditLog(config.audit_log, config.audit_log_megabytes, config.audit_log_backups)
    return Auditor(Policy.load(config.audit_policy), file)


def _front_proxy(config: ApiServerConfig) -> FrontProxy | None:
    if config.front_proxy_ca is None:
        return None
    from atoll.apiserver.auth.frontproxy import FrontProxy

    return FrontProxy(config.front_proxy_ca, config.front_proxy_names)


class Serving:
    """A server that listens: `port` is where, `server` what, `await close()` ends both."""

    def __init__(self, server: ApiServer, http: Server, port: int) -> None:
        self.server = server
        self.port = port
        self._http = http

    async def close(self) -> None:
        await self._http.close(grace=1.0)
        await self.server.close()


async def serve(config: ApiServerConfig) -> Serving:
    """Start an API server and listen; answers once /readyz is ok. Raises InUse, Unavailable, SystemFailure."""
    server = ApiServer(config)
    try:
        await server.start()
        http = Server(server.handler, Limits(body=BODY_MAX))
        port = await http.start_tcp(config.bind_address, config.port, tls_context(config))
    except BaseException:
        await server.close()
        raise
    await server.announce(port)
    return Serving(server, http, port)


def tls_context(config: ApiServerConfig) -> ssl.SSLContext | None:
    """TLS for serving: client certificates are asked for, and verified when they come. None without a certificate (tests on loopback)."""
    if config.serving_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.serving_cert, config.serving_key)
    context.set_alpn_protocols(["http/1.1"])
    if config.client_ca is not None:
        context.load_verify_locations(config.client_ca)
        if config.front_proxy_ca is not None:
            context.load_verify_locations(config.front_proxy_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
