"""What to do next for a pod: the pure plan."""

from __future__ import annotations

from typing import Any

from atoll.node.pods.admit import refusal_of
from atoll.node.pods.model import Actual, ContainerState, Health, State, Waiting, spec_hash
from atoll.node.pods.plan import Discard, Finish, Kill, MakeSandbox, Start, next_delay, plan

NS = 1_000_000_000
NOW = 1_000.0
WALL = 1_700_000_000 * NS


def a_pod(policy: str = "Always", inits: tuple[dict[str, Any], ...] = (), **spec: Any) -> dict[str, Any]:
    containers = [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}]
    return {
        "metadata": {"name": "p", "namespace": "d", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": containers, "initContainers": list(inits), **spec},
        "status": {},
    }


def state(name: str, kind: State = State.RUNNING, code: int = 0, attempt: int = 0, ago_s: float = 0.0, **fields: Any) -> ContainerState:
    values: dict[str, Any] = {
        "id": f"{name}-{attempt}",
        "name": name,
        "attempt": attempt,
        "sandbox": "s",
        "hash": spec_hash({"name": name, "image": "i"}),
        "image": "i",
        "image_id": "sha256:i",
        "state": kind,
        "exit_code": code,
        "started_ns": WALL - int((ago_s + 1) * NS),
        "finished_ns": WALL - int(ago_s * NS) if kind is State.EXITED else 0,
    }
    return ContainerState(**{**values, **fields})


def actual(*states: ContainerState, **fields: Any) -> Actual:
    containers: dict[str, list[ContainerState]] = {}
    for one in states:
        containers.setdefault(one.name, []).append(one)
    return Actual(**{"sandbox": "s", "containers": containers, **fields})


def actions(pod: dict[str, Any], found: Actual) -> list[Any]:
    return list(plan(pod, found, NOW, WALL).actions)


def test_sandbox_comes_first() -> None:
    assert actions(a_pod(), Actual()) == [MakeSandbox()]


def test_main_containers_start_together() -> None:
    assert actions(a_pod(), actual()) == [Start("main", 0), Start("side", 0)]


def test_nothing_to_do_while_all_run() -> None:
    assert actions(a_pod(), actual(state("main"), state("side"))) == []


def test_init_containers_one_after_another() -> None:
    pod = a_pod(inits=({"name": "a", "image": "i"}, {"name": "b", "image": "i"}))
    assert actions(pod, actual()) == [Start("a", 0)]
    assert actions(pod, actual(state("a"))) == []
    done = state("a", State.EXITED)
    assert actions(pod, actual(done)) == [Start("b", 0)]
    assert actions(pod, actual(done, state("b", State.EXITED))) == [Start("main", 0), Start("side", 0)]


def test_a_sidecar_is_waited_for_only_until_it_has_started() -> None:
    pod = a_pod(inits=({"name": "car", "image": "i", "restartPolicy": "Always"},))
    running = state("car")
    assert actions(pod, actual(running, health={running.id: Health(started=False)})) == []
    assert actions(pod, actual(running)) == [Start("main", 0), Start("side", 0)]
    gone = state("car", State.EXITED, ago_s=1)
    assert actions(pod, actual(gone, state("main"), state("side"))) == [Start("car", 1)]


def test_init_that_failed_ends_a_pod_that_never_restarts() -> None:
    pod = a_pod("Never", inits=({"name": "a", "image": "i"},))
    assert actions(pod, actual(state("a", State.EXITED, 1))) == [Finish()]


def test_restart_by_policy() -> None:
    failed, fine = state("main", State.EXITED, 1), state("side", State.EXITED, 0)
    assert actions(a_pod("Always"), actual(failed, fine)) == [Start("main", 1), Start("side", 1)]
    assert actions(a_pod("OnFailure"), actual(failed, fine)) == [Start("main", 1)]
    assert actions(a_pod("Never"), actual(failed, fine)) == [Finish()]
    assert actions(a_pod("Never"), actual(failed, state("side"))) == []


def test_back_off_is_waited_for() -> None:
    failed = state("main", State.EXITED, 1, attempt=3, ago_s=4)
    step = plan(a_pod(), actual(failed, state("side"), delays={"main": 10.0}), NOW, WALL)
    assert step.actions == []
    assert step.again_at == NOW + 6
    over = state("main", State.EXITED, 1, attempt=3, ago_s=11)
    assert actions(a_pod(), actual(over, state("side"), delays={"main": 10.0})) == [Start("main", 4)]


def test_back_off_doubles_to_five_minutes_and_is_forgotten() -> None:
    short, long = state("main", State.EXITED, 1), state("main", State.EXITED, 1, started_ns=WALL - 601 * NS)
    delays = [0.0]
    for _ in range(8):
        delays.append(next_delay(delays[-1], short))
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert next_delay(300.0, long) == 10
    assert next_delay(300.0, None) == 0


def test_a_failed_start_is_tried_at_its_time() -> None:
    waiting = {"main": Waiting("ErrImagePull", "no", NOW + 5)}
    step = plan(a_pod(), actual(state("side"), waiting=waiting), NOW, WALL)
    assert (step.actions, step.again_at) == ([], NOW + 5)


def test_unhealthy_and_changed_containers_are_killed() -> None:
    sick, changed = state("main"), state("side", hash="other")
    found = actions(a_pod(), actual(sick, changed, health={sick.id: Health(failure="failed liveness probe")}))
    assert found == [
        Kill(sick, "Container main failed liveness probe, will be restarted"),
        Kill(changed, "Container side definition changed, will be restarted"),
    ]


def test_containers_of_an_old_sandbox_are_history() -> None:
    old = state("main", State.EXITED, 137, attempt=2, sandbox="before")
    assert actions(a_pod(), actual(old)) == [Start("main", 3), Start("side", 0)]


def test_what_was_made_and_not_started_is_made_again() -> None:
    made = state("main", State.CREATED)
    assert actions(a_pod(), actual(made, state("side"))) == [Discard("main-0"), Start("main", 0)]


def test_one_ended_attempt_is_kept_for_its_log() -> None:
    attempts = [state("main", attempt=3), *(state("main", State.EXITED, 1, attempt=n) for n in (2, 1, 0))]
    assert actions(a_pod(), actual(*attempts, state("side"))) == [Discard("main-1"), Discard("main-0")]


def test_deadline_ends_the_pod() -> None:
    pod = a_pod(activeDeadlineSeconds=60)
    pod["status"]["startTime"] = "2023-11-14T22:13:00Z"  # 20 s before WALL
    step = plan(pod, actual(state("main"), state("side")), NOW, WALL)
    assert (step.actions, step.again_at) == ([], NOW + 40)
    pod["spec"]["activeDeadlineSeconds"] = 20
    assert actions(pod, actual(state("main"), state("side"))) == [Finish()]


def test_ephemeral_containers_run_once() -> None:
    pod = a_pod(ephemeralContainers=[{"name": "debug", "image": "i"}])
    running = (state("main"), state("side"))
    assert actions(pod, actual(*running)) == [Start("debug", 0)]
    assert actions(pod, actual(*running, state("debug", State.EXITED, 1))) == []


def test_unsafe_sysctls_are_refused() -> None:
    def refusal(name: str, **spec: Any) -> str:
        found = refusal_of(a_pod(securityContext={"sysctls": [{"name": name, "value": "1"}]}, **spec))
        return found.message if found else ""

    assert refusal("kernel.msgmax") == 'forbidden sysctl: "kernel.msgmax" not allowlisted'
    assert refusal("net.ipv4.tcp_syncookies") == ""
    assert refusal("net.ipv4.tcp_syncookies", hostNetwork=True).endswith("not allowed with host net enabled")
    assert refusal("kernel.shm_rmid_forced", hostIPC=True).endswith("not allowed with host ipc enabled")
    assert actions(a_pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), Actual()) == [Finish()]
