"""[sig-api-machinery] Discovery in both forms, the version, tables that are refused, lists in pages."""

import pytest
from conformance_api import Refused, until

from atoll.client.resources import POD_TEMPLATES

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
OLDER = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"


def aggregated(api, path):
    """(group, version) → resource → its entry."""
    found = {}
    for group in api.get(path, accept=AGGREGATED)["items"]:
        for version in group["versions"]:
            found[group["metadata"].get("name", ""), version["version"]] = {entry["resource"]: entry for entry in version["resources"]}
    return found


@pytest.mark.conformance(
    "[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]"
)
def test_the_accept_header_chooses_the_form(api):
    for path, plain in (("/api", "APIVersions"), ("/apis", "APIGroupList")):
        answer = api.request("GET", path, accept=AGGREGATED)
        assert answer.headers["Content-Type"] == AGGREGATED
        assert (answer.json()["kind"], answer.json()["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
        both = api.request("GET", path, accept=f"{AGGREGATED},application/json")
        assert both.headers["Content-Type"] == AGGREGATED
        assert both.headers["Vary"] == "Accept"
        assert both.headers["ETag"]
        assert api.get(path)["kind"] == plain


@pytest.mark.conformance("[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]")
def test_aggregated_discovery_names_what_plain_discovery_names(api):
    found = {**aggregated(api, "/api"), **aggregated(api, "/apis")}
    assert found["", "v1"]["pods"]["scope"] == "Namespaced"
    assert found["", "v1"]["pods"]["responseKind"]["kind"] == "Pod"
    assert found["", "v1"]["namespaces"]["scope"] == "Cluster"
    for group, version, resource in (
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("apps", "v1", "deployments"),
        ("batch", "v1", "jobs"),
    ):
        assert resource in found[group, version]
    for (group, version), resources in found.items():
        plain = api.get(f"/apis/{group}/{version}" if group else f"/api/{version}")
        subresources = {f"{name}/{sub['subresource']}" for name, entry in resources.items() for sub in entry.get("subresources", ())}
        assert {entry["name"] for entry in plain["resources"]} == {*resources, *subresources}


@pytest.mark.conformance("[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]")
def test_custom_resources_come_into_aggregated_discovery(api, definitions):
    (foos,) = definitions.new("Foo")
    listed = api.get("/apis", accept=AGGREGATED)["items"]
    group = next(item for item in listed if item["metadata"]["name"] == foos.group)
    version = group["versions"][0]
    assert (version["version"], version["freshness"]) == ("v1", "Current")
    found = version["resources"][0]
    assert (found["resource"], found["singularResource"], found["scope"]) == ("foos", "foo", "Namespaced")
    assert found["responseKind"] == {"group": foos.group, "version": "v1", "kind": "Foo"}


@pytest.mark.conformance("[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]")
def test_custom_resources_of_several_versions_are_discovered_and_forgotten(api, definitions):
    group = definitions.group()
    definitions.new("Foo", ("v1", "v2"), group=group)
    definitions.new("Bar", ("v2",), group=group, scope="Cluster")
    found = aggregated(api, "/apis")
    assert list(found[group, "v1"]) == ["foos"]
    assert sorted(found[group, "v2"]) == ["bars", "foos"]
    definitions.door.patch(f"foos.{group}", [{"op": "replace", "path": "/spec/versions/1/served", "value": False}], "json")
    until(lambda: list(aggregated(api, "/apis")[group, "v2"]) == ["bars"], "foos leave v2")


@pytest.mark.conformance("[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]")
def test_each_group_prefers_a_version_it_has(api):
    for group in api.get("/apis")["groups"]:
        assert group["preferredVersion"] in group["versions"]
        if group["name"].endswith(".example.com"):
            continue  # another test's, which may go meanwhile
        assert group["preferredVersion"] == api.get(f"/apis/{group['name']}")["preferredVersion"]


@pytest.mark.conformance("[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]")
def test_each_group_has_its_resources(api):
    groups = {group["name"]: group for group in api.get("/apis")["groups"]}
    for name, version, resource in (
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("apps", "v1", "deployments"),
        ("authentication.k8s.io", "v1", "tokenreviews"),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        ("autoscaling", "v2", "horizontalpodautoscalers"),
        ("batch", "v1", "jobs"),
        ("certificates.k8s.io", "v1", "certificatesigningrequests"),
        ("coordination.k8s.io", "v1", "leases"),
        ("discovery.k8s.io", "v1", "endpointslices"),
        ("events.k8s.io", "v1", "events"),
        ("networking.k8s.io", "v1", "ingresses"),
        ("node.k8s.io", "v1", "runtimeclasses"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
        ("storage.k8s.io", "v1", "csinodes"),
    ):
        assert f"{name}/{version}" in [entry["groupVersion"] for entry in groups[name]["versions"]]
        assert resource in [entry["name"] for entry in api.get(f"/apis/{name}/{version}")["resources"]]


@pytest.mark.conformance("[sig-api-machinery] server version should find the server version [Conformance]")
def test_the_version_is_two_numbers(api):
    version = api.get("/version")
    assert version["major"].isdecimal()
    assert version["minor"].rstrip("+").isdecimal()
    assert version["gitVersion"].startswith(f"v{version['major']}.{version['minor']}")


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement "
    "metadata [Conformance]"
)
def test_what_has_no_metadata_has_no_table(api):
    review = {"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    with pytest.raises(Refused) as refused:
        api.call("POST", path, review, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert (refused.value.code, refused.value.reason) == (406, "NotAcceptable")


@pytest.fixture
def many(api, ns):
    """400 pod templates, as fast as the server takes them."""
    templates = api.at(POD_TEMPLATES, ns)
    spec = {"containers": [{"name": "test", "image": "test2"}]}
    for number in range(400):
        templates.new(f"template-{number:04}", template={"metadata": {"labels": {"app": "x"}}, "spec": spec})
    return templates


def pages(door, size, **query):
    """Each page's names, and what each says is left."""
    token = None
    while True:
        page = door.list(limit=size, continue_=token, **query)
        yield page
        token = page["metadata"].get("continue")
        if not token:
            return


@pytest.mark.conformance(
    "[sig-api-machinery] Servers with support for API chunking should return chunks of results for list calls [Conformance]"
)
def test_a_list_comes_in_pages_of_one_version(many):
    names, versions = [], set()
    for page in pages(many, 33):
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        assert page["metadata"].get("remainingItemCount", 0) == 400 - len(names)
    assert names == [f"template-{number:04}" for number in range(400)]
    assert len(versions) == 1
    assert len(many.items()) == 400
