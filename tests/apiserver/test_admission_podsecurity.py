"""PodSecurity as kubectl meets it: what the three levels refuse, in upstream's words, and what they only warn of."""

from __future__ import annotations

import json
from itertools import count

import pytest
from apiserver_tools import KUBECTLS, Cluster, Kubectl

from atoll.apiserver.admission.podsecurity.evaluate import details, violations
from atoll.apiserver.admission.podsecurity.pod import Subject
from atoll.apiserver.admission.podsecurity.policy import LevelVersion, policy_of

NUMBERS = count()
HARDENED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def _pod(context=None, *, metadata=None, container=None, **spec):
    first = {"name": "c", "image": "busybox", **({"securityContext": context} if context else {}), **(container or {})}
    return Subject(metadata or {}, {"containers": [first], **spec})


def _told(level, subject):
    name, _, minor = level.partition(":v1.")
    return details(violations(LevelVersion(name, int(minor)) if minor else LevelVersion(name), subject))


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (_pod(hostNetwork=True, hostIPC=True), "host namespaces (hostNetwork=true, hostIPC=true)"),
        (_pod({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (
            _pod({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}),
            'non-default capabilities (container "c" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (_pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            _pod(container={"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 443}]}),
            'hostPort (container "c" uses hostPorts 443, 80)',
        ),
        (
            _pod(container={"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}}}),
            'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
        ),
        (_pod({"procMount": "Unmasked"}), 'procMount (container "c" must not set securityContext.procMount to "Unmasked")'),
        (_pod({"procMount": "Unmasked"}, hostUsers=False), ""),
        (
            _pod(securityContext={"seLinuxOptions": {"type": "spc_t", "role": "r"}}),
            'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "spc_t"; role may not be set)',
        ),
        (
            _pod({"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            _pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_fin_timeout"}]}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            _pod(metadata={"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}),
            'forbidden AppArmor profile (container.apparmor.security.beta.kubernetes.io/c="unconfined")',
        ),
        (
            _pod(securityContext={"windowsOptions": {"hostProcess": True}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (_pod(), ""),
    ],
)
def test_baseline(subject, told):
    assert _told("baseline", subject) == told


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        (
            _pod(),
            (
                'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
                'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
                'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
                'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
            ),
        ),
        (_pod(HARDENED), ""),
        (
            _pod(HARDENED, volumes=[{"name": "v", "nfs": {}}, {"name": "w", "hostPath": {}}, {"name": "x", "emptyDir": {}}]),
            'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")',
        ),
        (_pod(HARDENED, securityContext={"runAsUser": 0}), "runAsUser=0 (pod must not set runAsUser=0)"),
        (
            _pod({**HARDENED, "runAsNonRoot": False}, securityContext={"runAsNonRoot": False}),
            'runAsNonRoot != true (pod and container "c" must not set securityContext.runAsNonRoot=false)',
        ),
        (_pod({**HARDENED, "runAsNonRoot": False}, hostUsers=False), ""),
        (_pod({**HARDENED, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}), ""),
        (_pod({"runAsNonRoot": True}, os={"name": "windows"}), ""),
    ],
)
def test_restricted(subject, told):
    assert _told("restricted", subject) == told


@pytest.mark.parametrize(
    ("level", "subject", "is_bad"),
    [
        ("restricted:v1.7", _pod({"runAsNonRoot": True}), False),
        ("restricted:v1.18", _pod({"runAsNonRoot": True, "allowPrivilegeEscalation": False}), False),
        ("baseline:v1.26", _pod(securityContext={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}), True),
        ("baseline:v1.27", _pod(securityContext={"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}), False),
        ("baseline:v1.99", _pod({"procMount": "Unmasked"}, hostUsers=False), False),
        ("baseline:v1.34", _pod({"procMount": "Unmasked"}, hostUsers=False), True),
        ("baseline:v1.18", _pod(metadata={"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}), True),
    ],
)
def test_versions(level, subject, is_bad):
    assert bool(_told(level, subject)) is is_bad


def test_policy_of_labels():
    prefix = "pod-security.kubernetes.io/"
    policy, wrong = policy_of({f"{prefix}enforce": "baseline", f"{prefix}enforce-version": "v1.30"})
    assert (str(policy.enforce), str(policy.warn), str(policy.audit)) == ("baseline:v1.30", "baseline:v1.30", "privileged:latest")
    assert not wrong
    policy, wrong = policy_of({f"{prefix}enforce": "high", f"{prefix}warn": "x", f"{prefix}audit-version": "1.3"})
    assert (policy.enforce.level, policy.warn.level) == ("restricted", "privileged")
    assert [cause.field for cause in wrong] == [f"metadata.labels[{prefix}{key}]" for key in ("enforce", "audit-version", "warn")]
    assert wrong[0].message == 'Invalid value: "high": must be one of privileged, baseline, restricted'
    assert wrong[1].message == 'Invalid value: "1.3": must be "latest" or "v1.x"'


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def kubectl(cluster):
    kubectl = Kubectl(KUBECTLS[-1], cluster.admin())
    namespace = f"n{next(NUMBERS)}"
    kubectl("create", "namespace", namespace)
    kubectl("config", "set-context", "--current", f"--namespace={namespace}")
    kubectl("create", "serviceaccount", "default")
    kubectl.namespace = namespace
    return kubectl


def _manifest(name="p", **spec):
    spec = {"containers": [{"name": "c", "image": "busybox"}], **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def test_enforced(kubectl):
    label = "pod-security.kubernetes.io/enforce"
    kubectl("label", "ns", kubectl.namespace, f"{label}=restricted")
    told = kubectl.fails("apply", "-f", "-", stdin=_manifest(hostPID=True))
    assert 'pods "p" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostPID=true), allowPriv' in told
    context = {"securityContext": HARDENED, "name": "c", "image": "busybox"}
    kubectl("apply", "-f", "-", stdin=_manifest(containers=[context]))
    kubectl("label", "pod", "p", "a=b")  # what the standard does not look at is not judged again
    done = kubectl.run("create", "deployment", "d", "--image=busybox")
    assert done.returncode == 0
    assert 'Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false' in done.stderr
    told = kubectl.fails("debug", "p", "--image=busybox", "--profile=sysadmin")
    assert "violates PodSecurity" in told


def test_pods_from_before_are_told_of_and_stay(kubectl):
    for name in ("a", "b"):
        kubectl("apply", "-f", "-", stdin=_manifest(name, hostNetwork=True))
    done = kubectl.run("label", "ns", kubectl.namespace, "pod-security.kubernetes.io/enforce=baseline")
    assert done.returncode == 0
    assert f'existing pods in namespace "{kubectl.namespace}" violate the new PodSecurity enforce level "baseline:latest"' in done.stderr
    assert "a (and 1 other pod): host namespaces" in done.stderr
    kubectl("label", "pod", "a", "x=y")


def test_labels_are_checked(kubectl):
    told = kubectl.fails("label", "ns", kubectl.namespace, "pod-security.kubernetes.io/warn=high")
    assert f'Namespace "{kubectl.namespace}" is invalid: metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: "high"' in told


def test_only_warned(kubectl):
    kubectl("label", "ns", kubectl.namespace, "pod-security.kubernetes.io/warn=baseline", "pod-security.kubernetes.io/warn-version=v1.30")
    done = kubectl.run("apply", "-f", "-", stdin=_manifest(hostPID=True))
    assert done.returncode == 0
    assert 'Warning: would violate PodSecurity "baseline:v1.30": host namespaces (hostPID=true)' in done.stderr
