"""Every controller by name, and the way to run them: one client, one set of informers, one task group.

Cancelling `run_all` ends all of them. A controller that dies takes the group with it: half a control plane is worse than a restarted one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable

from atoll.client.factory import InformerFactory
from atoll.client.protocol import Client
from atoll.controllers.base import Config, Context, Controller
from atoll.controllers.certificates.approving import CertificateApprovingController
from atoll.controllers.certificates.bootstrapsigner import BootstrapSigner
from atoll.controllers.certificates.cleaner import CertificateCleanerController, TokenCleanerController
from atoll.controllers.certificates.signing import CertificateSigningController
from atoll.controllers.clusterrole import ClusterRoleAggregation
from atoll.controllers.daemonset.controller import DaemonSetController
from atoll.controllers.deployment.controller import DeploymentController
from atoll.controllers.disruption.controller import DisruptionController
from atoll.controllers.endpoints.controller import EndpointsController, EndpointSliceController
from atoll.controllers.endpoints.mirroring import EndpointSliceMirroringController
from atoll.controllers.garbage.controller import GarbageCollector
from atoll.controllers.job.controller import JobController
from atoll.controllers.job.cronjob import CronJobController
from atoll.controllers.job.ttl import TtlAfterFinishedController
from atoll.controllers.namespace import NamespaceController
from atoll.controllers.nodes.eviction import TaintEvictionController
from atoll.controllers.nodes.lifecycle import NodeLifecycleController
from atoll.controllers.nodes.podgc import PodGarbageCollector
from atoll.controllers.replicaset import ReplicaSetController
from atoll.controllers.replicationcontroller import ReplicationControllerController
from atoll.controllers.resourcequota import ResourceQuotaController
from atoll.controllers.serviceaccount import RootCaPublisher, ServiceAccountController
from atoll.controllers.servicecidr import ServiceCIDRController
from atoll.controllers.statefulset.controller import StatefulSetController
from atoll.controllers.tokens import TokenController
from atoll.controllers.volumes.binder import VolumeBinder
from atoll.controllers.volumes.local_path import LocalPathProvisioner
from atoll.controllers.volumes.protection import ClaimProtection, VolumeProtection

CONTROLLERS: tuple[type[Controller], ...] = (
    DeploymentController,
    ReplicaSetController,
    ReplicationControllerController,
    DaemonSetController,
    StatefulSetController,
    JobController,
    CronJobController,
    TtlAfterFinishedController,
    EndpointsController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    DisruptionController,
    NamespaceController,
    ServiceAccountController,
    RootCaPublisher,
    TokenController,
    ResourceQuotaController,
    ClusterRoleAggregation,
    ServiceCIDRController,
    GarbageCollector,
    VolumeBinder,
    LocalPathProvisioner,
    ClaimProtection,
    VolumeProtection,
    NodeLifecycleController,
    TaintEvictionController,
    PodGarbageCollector,
    CertificateApprovingController,
    CertificateSigningController,
    CertificateCleanerController,
    TokenCleanerController,
    BootstrapSigner,
)


async def run_all(
    client: Client,
    config: Config,
    *,
    informers: InformerFactory | None = None,
    controllers: Iterable[type[Controller]] = CONTROLLERS,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
) -> None:
    """Until cancelled. With `informers` given (shared with the scheduler, say) the caller runs them."""
    context = Context(client, informers or InformerFactory(client), config, clock, jitter)
    running = [controller(context) for controller in controllers]
    async with asyncio.TaskGroup() as group:
        if informers is None:
            group.create_task(context.informers.run(), name="informers")
        for controller in running:
            group.create_task(controller.run(), name=f"controller/{controller.name}")
