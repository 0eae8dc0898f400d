"""`cluster start|stop|delete|status|ip|dashboard`: minikube's verbs for this instance's cluster; `snapshot` and `restore` its objects."""

from __future__ import annotations

import os
import sys

from atoll.cli.flags import Command, Flag, Options
from atoll.cli.session import CommandFailed, engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.config import Instance

NOT_RUNNING = 7  # minikube status: host, kubelet and API server are a bit each


def _instance() -> Instance:
    from atoll.config import Instance

    # The control plane's process is told the same home, whatever directory it starts in.
    instance = Instance.from_environment()
    os.environ["ATOLL_HOME"] = str(instance.home)
    return instance


def _say(text: str) -> None:
    print(text, flush=True)


def start() -> Command:
    flags = (
        Flag("apiserver-port", "", "int", "The port the API server listens on (default 6443, or a free one where that is taken)"),
        Flag("store", "", "string", "Keep the objects in etcd: etcd://host:port, or etcds:// for TLS (default a file of the instance)"),
        Flag("etcd-cafile", "", "string", "The authority that has signed etcd's certificate (default the system's)"),
        Flag("etcd-certfile", "", "string", "The certificate by which etcd knows the API server"),
        Flag("etcd-keyfile", "", "string", "The key of that certificate"),
        Flag(
            "authentication-config",
            "",
            "string",
            "An AuthenticationConfiguration: issuers of OpenID Connect (empty for none)",
        ),
        Flag("audit-policy", "", "string", "An audit.k8s.io/v1 Policy; events go to logs/audit.log of the instance (empty for none)"),
        Flag("update-context", "", "bool", "Make the cluster kubectl's current context in your kubeconfig (default true)"),
    )
    return Command(_start, "[OPTIONS]", "Start a cluster, and make kubectl use it", flags, maximum=0)


def _start(options: Options, _: list[str]) -> int:
    import asyncio
    import time

    from atoll.cluster import lifecycle

    begin = time.monotonic()
    engine().connect().close()  # starts it where it does not run
    instance = _instance()
    settings = asyncio.run(
        lifecycle.start(
            instance,
            _say,
            api_port=options["apiserver-port"],
            update_context=options.get("update-context", True),
            store=options["store"],
            etcd_files=lifecycle.EtcdFiles(*(options.get(f"etcd-{file}") or "" for file in ("cafile", "certfile", "keyfile"))),
            authentication=options.get("authentication-config"),
            audit_policy=options.get("audit-policy"),
        )
    )
    _say(f"The cluster is ready at {settings.server} after {time.monotonic() - begin:.1f} s; its node is {settings.node_name}.")
    if os.environ.get("KUBECONFIG") == str(instance.kubeconfig) or options.get("update-context", True):
        _say("Try: kubectl get nodes")
    return 0


def stop() -> Command:
    return Command(_stop, "", "Stop the cluster; its data stays", maximum=0)


def _stop(_: Options, __: list[str]) -> int:
    import asyncio

    from atoll.cluster import lifecycle

    asyncio.run(lifecycle.stop(_instance(), _say))
    _say("The cluster has stopped.")
    return 0


def delete() -> Command:
    return Command(_delete, "", "Delete the cluster and all its data", maximum=0)


def _delete(_: Options, __: list[str]) -> int:
    import asyncio

    from atoll.cluster import lifecycle

    asyncio.run(lifecycle.delete(_instance(), _say))
    _say("The cluster is gone.")
    return 0


def snapshot() -> Command:
    return Command(_snapshot, "FILE", "Copy the cluster's objects to a file, while it runs", minimum=1, maximum=1)


def _snapshot(_: Options, words: list[str]) -> int:
    from pathlib import Path

    from atoll.cluster import lifecycle

    lifecycle.snapshot(_instance(), Path(words[0]))
    return 0


def restore() -> Command:
    return Command(_restore, "FILE", "Put a snapshot's objects in the place of the stopped cluster's", minimum=1, maximum=1)


def _restore(_: Options, words: list[str]) -> int:
    from pathlib import Path

    from atoll.cluster import lifecycle

    lifecycle.restore(_instance(), Path(words[0]))
    _say("Start the cluster with `atoll cluster start`.")
    return 0


def status() -> Command:
    flags = (Flag("output", "o", "string", "text (default) or json"),)
    return Command(_status, "[OPTIONS]", "Tell the state of the cluster's parts", flags, maximum=0)


def _status(options: Options, _: list[str]) -> int:
    import asyncio
    import json

    from atoll.cluster import lifecycle
    from atoll.errors import NotFound

    try:
        found = asyncio.run(lifecycle.status(_instance()))
    except NotFound as error:
        print(f"* {error}", file=sys.stderr)
        return 85  # minikube's own for "no such cluster"
    lines = {
        "type": "Control Plane",
        "host": found.node,
        "kubelet": found.kubelet,
        "apiserver": found.api_server,
        "kubeconfig": "Configured" if found.configured else "Misconfigured",
    }
    if options["output"] == "json":
        print(json.dumps({"Name": "atoll", **lines}))
    else:
        print("atoll")
        print("\n".join(f"{name}: {value}" for name, value in lines.items()))
    return 0 if found.is_running else NOT_RUNNING


def ip() -> Command:
    return Command(_ip, "", "Print the node's address", maximum=0)


def _ip(_: Options, __: list[str]) -> int:
    from atoll.cluster.settings import ClusterSettings

    print(ClusterSettings.load(_instance()).node_ip)
    return 0


def dashboard() -> Command:
    return Command(_dashboard, "", "Open the cluster's web page", maximum=0)


def _dashboard(_: Options, __: list[str]) -> int:
    raise CommandFailed("the dashboard is not supported yet: use `atoll kubectl get all --all-namespaces`")


def addon() -> Command:
    flags = (
        Flag("addr", "", "string", "With registry: where it listens on this machine (default 127.0.0.1:5000)", "host:port"),
        Flag("disable", "", "bool", "Stop the add-on; its data stays"),
    )
    return Command(_addon, "[OPTIONS] registry", "Start an add-on of the cluster, or stop it", flags, minimum=1, maximum=1)


def _addon(options: Options, words: list[str]) -> int:
    from atoll.cluster import addons
    from atoll.cluster.settings import ClusterSettings

    if words[0] != addons.REGISTRY:
        raise CommandFailed(f"there is no add-on {words[0]}: there is {addons.REGISTRY}")
    instance = _instance()
    ClusterSettings.load(instance)
    if options["disable"]:
        addons.disable_registry(instance, _say)
        return 0
    address = options["addr"] or addons.DEFAULT_ADDRESS
    addons.enable_registry(instance, address, _say)
    _say(f"Push images to {address}/NAME, and name them so in pods: they are in no other place, and come over no network.")
    return 0
