from datetime import UTC, datetime

import pytest

import virtual_time
from atoll.client.objects import annotations_of, condition_of, copy_of
from atoll.client.resources import CRON_JOBS, EVENTS, JOBS, PODS
from atoll.controllers.base import Config
from atoll.controllers.garbage.controller import GarbageCollector
from atoll.controllers.job import indexes, plan, policies
from atoll.controllers.job.controller import JobController
from atoll.controllers.job.cronjob import CronJobController
from atoll.controllers.job.schedule import parse
from atoll.controllers.job.ttl import TtlAfterFinishedController
from atoll.controllers.pods import BURST
from atoll.errors import InvalidInput
from atoll.units import timestamp_seconds
from controller_harness import cluster, container


def spec(restart="Never", **more):
    """What the API server makes of it, the generated selector included."""
    template = {"metadata": {"labels": {"job-name": "j"}}, "spec": {"restartPolicy": restart, "containers": [container()]}}
    return {"selector": {"matchLabels": {"job-name": "j"}}, "template": template, **more}


def job(**more):
    return {"metadata": {"name": "j"}, "spec": spec(**more)}


def get(c, name="j"):
    return c.client.find(JOBS, name, "default")


def active(c):
    return [pod for pod in c.pods() if pod["status"]["phase"] in ("Pending", "Running")]


async def end(c, pod, phase="Succeeded"):
    changed = copy_of(c.client.find(PODS, pod["metadata"]["name"], "default"))
    finished = {"state": {"terminated": {"finishedAt": timestamp_seconds(virtual_time.clock())}}, "restartCount": 0}
    changed["status"] |= {"phase": phase, "containerStatuses": [finished]}
    await c.client.update(PODS, changed, subresource="status")


def true_conditions(c, name="j"):
    return {entry["type"]: entry["reason"] for entry in get(c, name)["status"].get("conditions", ()) if entry["status"] == "True"}


def test_runs_to_completion_and_lets_its_pods_go():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job(completions=3, parallelism=2))
            await c.settle()
            for left in (2, 2, 1):
                assert len(active(c)) == left
                await end(c, active(c)[0])
                await c.settle()
            status = get(c)["status"]
            assert (status["succeeded"], status.get("active"), status["uncountedTerminatedPods"]) == (3, None, {})
            assert true_conditions(c) == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
            assert status["completionTime"] >= status["startTime"]
            assert all(not pod["metadata"].get("finalizers") for pod in c.pods())
            assert "Completed" in {event["reason"] for event in c.client.all(EVENTS)}
            writes = len(c.client.actions)
            await c.settle(1000)
            assert len(c.client.actions) == writes

    virtual_time.run(scenario())


def test_failures_back_off_and_reach_the_limit():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job(backoffLimit=2))
            await c.settle()
            for wait in (10, 20):
                await end(c, active(c)[0], "Failed")
                await c.settle(wait - 2)
                assert active(c) == []
                await c.settle(4)
                assert len(active(c)) == 1
            await end(c, active(c)[0], "Failed")
            await c.settle()
            assert true_conditions(c)["Failed"] == "BackoffLimitExceeded"
            assert get(c)["status"]["failed"] == 3

    virtual_time.run(scenario())


def test_deadline_ends_what_runs():
    async def scenario():
        async with cluster(JobController, kubelet=True) as c:
            await c.create(JOBS, job(activeDeadlineSeconds=30))
            await c.settle(20)
            assert len(active(c)) == 1
            await c.settle(20)
            assert active(c) == []
            assert true_conditions(c)["Failed"] == "DeadlineExceeded"

    virtual_time.run(scenario())


def test_indexed():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job(completions=4, parallelism=2, completionMode="Indexed"))
            await c.settle()

            def by_index():
                return {int(annotations_of(pod)[indexes.INDEX]): pod for pod in active(c)}

            assert sorted(by_index()) == [0, 1]
            pod = by_index()[1]
            assert pod["spec"]["hostname"] == "j-1"
            assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
            await end(c, pod)
            await c.settle()
            assert sorted(by_index()) == [0, 2]
            assert get(c)["status"]["completedIndexes"] == "1"
            await end(c, by_index()[0], "Failed")
            await c.settle(15)
            assert sorted(by_index()) == [0, 2]  # once more
            for _ in range(3):
                await end(c, active(c)[0])
                await c.settle(15)
            assert (get(c)["status"]["completedIndexes"], get(c)["status"]["succeeded"]) == ("0-3", 4)
            assert "Complete" in true_conditions(c)

    virtual_time.run(scenario())


def test_a_work_queue_is_done_when_one_succeeded_and_all_ended():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job(parallelism=3, completions=None))
            await c.settle()
            first, *others = active(c)
            await end(c, first)
            await c.settle()
            assert len(active(c)) == 2
            assert true_conditions(c) == {}
            for pod in others:
                await end(c, pod)
            await c.settle()
            assert "Complete" in true_conditions(c)

    virtual_time.run(scenario())


def test_suspend_and_resume():
    async def scenario():
        async with cluster(JobController, kubelet=True) as c:
            await c.create(JOBS, job(suspend=True))
            await c.settle()
            assert active(c) == []
            assert true_conditions(c) == {"Suspended": "JobSuspended"}
            assert "startTime" not in get(c)["status"]
            await c.client.patch(JOBS, "j", {"spec": {"suspend": False}}, "default")
            await c.settle()
            assert len(active(c)) == 1
            assert condition_of(get(c), "Suspended")["status"] == "False"
            await c.client.patch(JOBS, "j", {"spec": {"suspend": True}}, "default")
            await c.settle()
            assert active(c) == []

    virtual_time.run(scenario())


def test_a_pod_deleted_by_someone_is_replaced_and_counted_once():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job())
            await c.settle()
            await c.client.delete(PODS, active(c)[0]["metadata"]["name"], "default")
            await c.settle(20)
            assert len(active(c)) == 1
            assert get(c)["status"]["failed"] == 1

    virtual_time.run(scenario())


def test_a_deleted_job_does_not_leave_pods_hanging():
    async def scenario():
        config = Config(resources=lambda: (JOBS, PODS))
        async with cluster(JobController, GarbageCollector, kubelet=True, config=config) as c:
            await c.create(JOBS, job(parallelism=2, completions=2))
            await c.settle()
            await c.client.delete(JOBS, "j", "default")
            await c.settle(5)
            assert c.client.all(PODS) == []

    virtual_time.run(scenario())


def test_ttl():
    async def scenario():
        async with cluster(JobController, TtlAfterFinishedController) as c:
            await c.create(JOBS, job(ttlSecondsAfterFinished=60))
            await c.settle()
            await end(c, active(c)[0])
            await c.settle(30)
            assert get(c) is not None
            await c.settle(40)
            assert get(c)["metadata"]["deletionTimestamp"]  # foreground: its pods first

    virtual_time.run(scenario())


@pytest.mark.parametrize(("values", "text"), [([], ""), ([3], "3"), ([1, 2], "1,2"), ([0, 1, 2, 5, 7, 8, 9], "0-2,5,7-9")])
def test_index_spelling(values, text):
    assert indexes.spell(values) == text
    assert indexes.parse(text, 10) == set(values)


def test_indexes_beyond_all_memory():
    assert indexes.parse("0-9999999999,x,1-2-3,(,7", 3) == {0, 1, 2}
    assert indexes.within(indexes.ranges("0-1,5-2147483646"), {1, 4, 6, 9}) == 3
    spec = {"completions": 2**31 - 1, "successPolicy": {"rules": [{"succeededIndexes": "0-2147483646"}, {"succeededIndexes": "3-4"}]}}
    assert policies.success_rule({"spec": spec}, {3, 4}) == 1
    assert policies.success_rule({"spec": spec}, {3}) is None
    assert plan.free_indexes({"spec": spec}, [], {0, 2}, 3) == [1, 3, 4]


def test_many_pods_come_in_bursts():
    async def scenario():
        async with cluster(JobController) as c:
            await c.create(JOBS, job(parallelism=BURST + 20))
            await c.settle()
            assert len(c.pods()) == BURST + 20

    virtual_time.run(scenario())


# Schedules


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("*/5 * * * *", "2026-01-01T00:02:30", "2026-01-01T00:05:00"),
        ("0 0 * * *", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("30 8 * * mon-fri", "2026-01-02T09:00:00", "2026-01-05T08:30:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 12 1,15 * *", "2026-01-02T00:00:00", "2026-01-15T12:00:00"),
        ("0 0 13 * 5", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),  # either day
        ("@hourly", "2026-01-01T00:00:00", "2026-01-01T01:00:00"),
        ("0 0 * * 7", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("5/20 * * * *", "2026-01-01T00:06:00", "2026-01-01T00:25:00"),
    ],
)
def test_schedules(expression, after, expected):
    assert parse(expression).following(at(after)) == at(expected)


def test_schedules_that_never_come_and_zones():
    assert parse("0 0 30 2 *").following(at("2026-01-01T00:00:00")) is None
    assert parse("0 9 * * *", "Asia/Tokyo").following(at("2026-01-01T00:30:00")) == at("2026-01-02T00:00:00")
    assert parse("* * * * *").latest(at("2026-01-01T00:00:00"), at("2026-01-05T00:00:30")) == (at("2026-01-05T00:00:00"), 101)


@pytest.mark.parametrize("expression", ["", "* * * *", "61 * * * *", "* * * * * *", "a * * * *", "5-1 * * * *", "*/0 * * * *", "* * 0 * *"])
def test_bad_schedules(expression):
    with pytest.raises(InvalidInput):
        parse(expression)


def test_a_bad_zone():
    with pytest.raises(InvalidInput, match="time zone"):
        parse("* * * * *", "Mars/Base")


def cron_job(**more):
    return {"metadata": {"name": "cj"}, "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"spec": spec()}, **more}}


def jobs(c):
    return sorted(each["metadata"]["name"] for each in c.client.all(JOBS) if not each["metadata"].get("deletionTimestamp"))


async def finish_all(c, phase="Succeeded"):
    for pod in active(c):
        await end(c, pod, phase)
    await c.settle()


def test_a_job_at_every_time_and_a_short_history():
    async def scenario():
        async with cluster(
            CronJobController, JobController, GarbageCollector, config=Config(resources=lambda: (CRON_JOBS, JOBS, PODS))
        ) as c:
            await c.create(CRON_JOBS, cron_job())
            for _ in range(6):
                await c.settle(600)
                await finish_all(c)
            assert len(jobs(c)) == 3
            status = c.client.find(CRON_JOBS, "cj", "default")["status"]
            assert status["lastScheduleTime"] == "2026-01-01T01:00:00Z"
            assert "active" not in status
            assert status["lastSuccessfulTime"]
            minutes = int(at("2026-01-01T01:00:00") // 60)
            assert jobs(c)[-1] == f"cj-{minutes}"
            reasons = {event["reason"] for event in c.client.all(EVENTS)}
            assert {"SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"} <= reasons

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("policy", "running"),
    [
        pytest.param(
            "Allow", 3, marks=pytest.mark.conformance("[sig-apps] CronJob should schedule multiple jobs concurrently [Conformance]")
        ),
        pytest.param(
            "Forbid",
            1,
            marks=pytest.mark.conformance("[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow] [Conformance]"),
        ),
        pytest.param(
            "Replace", 1, marks=pytest.mark.conformance("[sig-apps] CronJob should replace jobs when ReplaceConcurrent [Conformance]")
        ),
    ],
)
def test_concurrency(policy, running):
    async def scenario():
        async with cluster(CronJobController, kubelet=True) as c:
            await c.create(CRON_JOBS, cron_job(concurrencyPolicy=policy))
            await c.settle(1801)
            assert len(jobs(c)) == running
            assert len(c.client.find(CRON_JOBS, "cj", "default")["status"]["active"]) == running

    virtual_time.run(scenario())


@pytest.mark.conformance("[sig-apps] CronJob should not schedule jobs when suspended [Slow] [Conformance]")
def test_missed_times_are_made_good_by_the_last_alone():
    async def scenario():
        async with cluster(CronJobController) as c:
            await c.create(CRON_JOBS, cron_job(suspend=True))
            await c.settle(3600)
            assert jobs(c) == []
            await c.client.patch(CRON_JOBS, "cj", {"spec": {"suspend": False}}, "default")
            await c.settle()
            assert len(jobs(c)) == 1
            await c.create(CRON_JOBS, {**cron_job(), "metadata": {"name": "bad"}, "spec": {**cron_job()["spec"], "schedule": "nonsense"}})
            await c.settle()
            assert "UnparseableSchedule" in {event["reason"] for event in c.client.all(EVENTS)}

    virtual_time.run(scenario())


def test_a_deadline_drops_what_is_too_late():
    async def scenario():
        async with cluster(CronJobController) as c:
            await c.create(CRON_JOBS, cron_job(suspend=True, startingDeadlineSeconds=60))
            await c.settle(660 + 90)
            await c.client.patch(CRON_JOBS, "cj", {"spec": {"suspend": False}}, "default")
            await c.settle()
            assert jobs(c) == []

    virtual_time.run(scenario())
