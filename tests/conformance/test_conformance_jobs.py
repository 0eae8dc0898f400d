"""[sig-apps] Job: completions, indexes, what failures mean, what is success enough, adoption, status."""

import pytest
from conformance_api import until
from conformance_plane import EXIT_CODE, FAIL, HOLD, PLAYED
from conformance_workloads import template

from atoll.client.resources import JOBS, PODS

INDEX = "batch.kubernetes.io/job-completion-index"


@pytest.fixture
def jobs(api, ns):
    return api.at(JOBS, ns)


@pytest.fixture
def pods(api, ns):
    return api.at(PODS, ns)


def spec(fate=None, *, code=None, **fields):
    annotations = {} if code is None else {EXIT_CODE: str(code)}
    return {"template": template({}, fate=fate, annotations=annotations, restartPolicy="Never"), **fields}


def indexed(completions, fate=None, *, code=None, **fields):
    return spec(fate, code=code, completions=completions, completionMode="Indexed", **{"parallelism": completions, **fields})


def conditions(job):
    return {each["type"]: each["reason"] for each in job["status"].get("conditions") or () if each["status"] == "True"}


def ended(jobs, kind, reason=None, name="job"):
    found = jobs.until(name, lambda job: kind in conditions(job))
    assert reason is None or conditions(found)[kind] == reason
    return found


def owner(pod):
    return (pod["metadata"].get("ownerReferences") or [{}])[0].get("uid")


@pytest.mark.conformance(
    "[sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname [Conformance]"
)
def test_an_indexed_job(jobs, pods):
    jobs.new("job", spec=indexed(4, parallelism=2))
    assert ended(jobs, "Complete")["status"]["completedIndexes"] == "0-3"
    found = {pod["metadata"]["annotations"][INDEX]: pod["spec"]["hostname"] for pod in pods.items()}
    assert found == {str(number): f"job-{number}" for number in range(4)}


@pytest.mark.conformance(
    "[sig-apps] Job should allow to use a pod failure policy to ignore failure matching on DisruptionTarget condition [Conformance]"
)
def test_disruptions_are_ignored(jobs, pods):
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    jobs.new("job", spec=spec(HOLD, backoffLimit=0, podFailurePolicy={"rules": rules}))
    (name,) = until(pods.names)
    pods.until(name, lambda pod: pod["spec"].get("nodeName"))
    pods.create({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": pods.namespace}}, "eviction")
    (other,) = until(lambda: [each for each in pods.names() if each != name], "another pod in its place")
    pods.patch(other, {"metadata": {"annotations": {PLAYED: "succeed"}}})
    done = ended(jobs, "Complete")
    assert (done["status"]["succeeded"], done["status"].get("failed")) == (1, None)


@pytest.mark.conformance("[sig-apps] Job should allow to use the pod failure policy on exit code to fail the job early [Conformance]")
def test_an_exit_code_fails_the_job(jobs):
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    jobs.new("job", spec=spec(FAIL, code=42, backoffLimit=6, podFailurePolicy={"rules": rules}))
    told = ended(jobs, "Failed", "PodFailurePolicy")
    assert "failed with exit code 42 matching FailJob rule at index 0" in told["status"]["conditions"][-1]["message"]
    assert told["status"]["failed"] == 1


@pytest.mark.conformance("[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex [Conformance]")
def test_each_index_has_its_own_limit(jobs):
    jobs.new("job", spec=indexed(4, f"{FAIL}:1,3", parallelism=2, backoffLimitPerIndex=0))
    status = ended(jobs, "Failed", "FailedIndexes")["status"]
    assert (status["failedIndexes"], status["completedIndexes"], status["failed"], status["succeeded"]) == ("1,3", "0,2", 2, 2)


@pytest.mark.conformance(
    "[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes [Conformance]"
)
def test_too_many_failed_indexes_end_the_job(jobs):
    jobs.new("job", spec=indexed(10, FAIL, parallelism=3, backoffLimitPerIndex=0, maxFailedIndexes=2))
    status = ended(jobs, "Failed", "MaxFailedIndexesExceeded")["status"]
    assert 3 <= status["failed"] < 10  # some may have been under way
    assert status["failedIndexes"] == f"0-{status['failed'] - 1}"


@pytest.mark.conformance(
    "[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy [Conformance]"
)
def test_a_rule_fails_an_index(jobs):
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]
    jobs.new("job", spec=indexed(2, f"{FAIL}:0", code=42, backoffLimitPerIndex=1, podFailurePolicy={"rules": rules}))
    status = ended(jobs, "Failed", "FailedIndexes")["status"]
    assert (status["failedIndexes"], status["completedIndexes"], status["failed"], status["succeeded"]) == ("0", "1", 1, 1)


@pytest.mark.conformance("[sig-apps] Job with successPolicy should succeeded when all indexes succeeded [Conformance]")
def test_all_indexes_are_enough(jobs):
    policy = {"rules": [{"succeededCount": 2}]}
    jobs.new("job", spec=indexed(2, successPolicy=policy))
    status = ended(jobs, "SuccessCriteriaMet")["status"]
    ended(jobs, "Complete", "SuccessPolicy")
    assert status["succeeded"] == 2


@pytest.mark.conformance(
    "[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain pending [Conformance]"
)
def test_named_indexes_are_enough(jobs):
    policy = {"rules": [{"succeededIndexes": "0"}]}
    jobs.new("job", spec=indexed(2, f"{HOLD}:1", successPolicy=policy))
    status = ended(jobs, "Complete", "SuccessPolicy")["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0", 1)


@pytest.mark.conformance(
    "[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending [Conformance]"
)
def test_a_number_of_indexes_is_enough(jobs):
    jobs.new("job", spec=indexed(2, f"{HOLD}:1", successPolicy={"rules": [{"succeededCount": 1}]}))
    status = ended(jobs, "Complete", "SuccessPolicy")["status"]
    assert (status["completedIndexes"], status["succeeded"]) == ("0", 1)


@pytest.mark.conformance("[sig-apps] Job should delete a job [Conformance]")
def test_a_job_is_deleted(jobs, pods):
    jobs.new("job", spec=spec(HOLD, parallelism=2, completions=4))
    until(lambda: len(pods.names()) == 2)
    jobs.delete("job", propagationPolicy="Foreground")
    jobs.until_gone("job")
    assert pods.items() == []


@pytest.mark.conformance("[sig-apps] Job should apply changes to a job status [Conformance]")
def test_the_status_of_a_job(jobs, pods):
    jobs.new("job", spec=spec(HOLD, parallelism=2, completions=4))
    jobs.until("job", lambda job: job["status"].get("active") == 2)
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"startTime": "2026-01-01T00:00:00Z"}}
    patched = jobs.patch("job", patch, sub="status")
    assert (patched["status"]["startTime"], patched["metadata"]["annotations"]["patchedstatus"]) == ("2026-01-01T00:00:00Z", "true")
    updated = jobs.change("job", lambda job: job["status"].update(startTime="2026-01-02T00:00:00Z"), "status")
    assert updated["status"]["startTime"] == "2026-01-02T00:00:00Z"
    assert jobs.get("job", "status")["kind"] == "Job"


@pytest.mark.conformance("[sig-apps] Job should manage the lifecycle of a job [Conformance]")
def test_the_life_of_a_job(api, jobs, pods):
    selector = {"labelSelector": "e2e-job=life"}
    jobs.new("job", labels={"e2e-job": "life"}, spec=spec(HOLD, suspend=True, parallelism=2, completions=2))
    assert pods.names() == []
    jobs.patch("job", {"metadata": {"labels": {"e2e": "patched"}}, "spec": {"suspend": False}})
    until(lambda: len(pods.names()) == 2)
    updated = jobs.change("job", lambda job: job["metadata"].update(annotations={"updated": "true"}))
    assert updated["metadata"]["annotations"]["updated"] == "true"
    assert api.at(JOBS).names(**selector) == ["job"]
    for name in pods.names():
        pods.patch(name, {"metadata": {"annotations": {PLAYED: "succeed"}}})
    assert ended(jobs, "Complete")["status"]["succeeded"] == 2
    api.call("DELETE", jobs.path(), {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}, **selector)
    until(lambda: not pods.items())
    assert api.at(JOBS).names(**selector) == []


@pytest.mark.conformance("[sig-apps] Job should adopt matching orphans and release non-matching pods [Conformance]")
def test_a_job_adopts_and_releases(jobs, pods):
    made = jobs.new("job", spec=spec(HOLD, parallelism=2, completions=2))
    uid = made["metadata"]["uid"]
    name = until(pods.names)[0]
    pods.patch(name, {"metadata": {"ownerReferences": None}})
    pods.until(name, lambda pod: owner(pod) == uid)
    labels = dict.fromkeys(pods.get(name)["metadata"]["labels"])
    pods.patch(name, {"metadata": {"labels": labels}})
    pods.until(name, lambda pod: owner(pod) is None)
