"""JSON patch, merge patch and strategic merge patch: the RFCs' examples, upstream's directives, and properties."""

from __future__ import annotations

import copy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.apiserver.machinery.kind import ListMeta
from atoll.apiserver.machinery.patch_json import apply_json_patch, apply_merge_patch
from atoll.apiserver.machinery.patch_strategic import apply_strategic_patch
from atoll.errors import StatusError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc", max_size=2),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=1), children, max_size=3),
    max_leaves=8,
)
MAPS = st.dictionaries(st.text("abc", min_size=1, max_size=1), JSON, max_size=3)


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": "b"}, [{"op": "add", "path": "/c", "value": 1}], {"a": "b", "c": 1}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": {"x": None}}], {"a": {"x": None}}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a/b": 1, "m~n": 2}, [{"op": "test", "path": "/a~1b", "value": 1}, {"op": "remove", "path": "/m~0n"}], {"a/b": 1}),
    ],
)
def test_json_patch(document, patch, result):
    assert apply_json_patch(document, patch) == result


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ([{"op": "remove", "path": "/none"}], 422),
        ([{"op": "replace", "path": "/none", "value": 1}], 422),
        ([{"op": "test", "path": "/a", "value": True}], 422),
        ([{"op": "add", "path": "/l/9", "value": 1}], 422),
        ([{"op": "add", "path": "/l/01", "value": 1}], 422),
        ([{"op": "add", "path": "no-slash", "value": 1}], 422),
        ([{"op": "move", "from": "/m", "path": "/m/x"}], 422),
        ([{"op": "dance", "path": "/a"}], 422),
        ([{"op": "add", "path": "/x"}], 422),
        ({"op": "add"}, 400),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, 413),
        ([{"op": "add", "path": "/m/x", "value": "y" * 100_000}] + [{"op": "copy", "from": "/m", "path": "/m/y"}] * 30, 413),
    ],
)
def test_json_patches_that_do_not_fit(patch, code):
    with pytest.raises(StatusError) as refused:
        apply_json_patch({"a": 1, "l": [0], "m": {}}, patch)
    assert refused.value.code == code


@given(JSON, JSON)
def test_a_merge_patch_applied_twice_is_as_once(document, patch):
    once = apply_merge_patch(copy.deepcopy(document), copy.deepcopy(patch))
    assert apply_merge_patch(copy.deepcopy(once), copy.deepcopy(patch)) == once


@given(MAPS, MAPS)
def test_a_json_patch_that_replaces_each_field_makes_the_target(document, target):
    patch = [{"op": "remove", "path": f"/{key}"} for key in document] + [
        {"op": "add", "path": f"/{key}", "value": value} for key, value in target.items()
    ]
    assert apply_json_patch(copy.deepcopy(document), patch) == target


META = {
    ("containers",): ListMeta("list", ("merge",), "name"),
    ("containers", "*", "ports"): ListMeta("list", ("merge",), "containerPort"),
    ("finalizers",): ListMeta("list", ("merge",)),
    ("volumes",): ListMeta("list", ("merge", "retainKeys"), "name"),
    ("args",): ListMeta("list"),
    ("strategy",): ListMeta("struct", ("retainKeys",)),
}


def strategic(document, patch):
    return apply_strategic_patch(copy.deepcopy(document), copy.deepcopy(patch), lambda path: META.get(path, ListMeta()))


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        pytest.param(
            {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]},
            {"containers": [{"name": "b", "image": "2"}]},
            {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]},
            id="merges by key",
        ),
        pytest.param(
            {"containers": [{"name": "a"}]},
            {"containers": [{"name": "new"}]},
            {"containers": [{"name": "new"}, {"name": "a"}]},
            id="a new item comes first",
        ),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
            id="delete directive",
        ),
        pytest.param(
            {"containers": [{"name": "a"}]},
            {"containers": [{"$patch": "replace"}, {"name": "z"}]},
            {"containers": [{"name": "z"}]},
            id="replace directive in a list",
        ),
        pytest.param({"m": {"a": 1}}, {"m": {"$patch": "replace", "b": 2}}, {"m": {"b": 2}}, id="replace directive in a map"),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "b", "$patch": "delete"}]},
            {"containers": [{"name": "c"}, {"name": "a"}]},
            id="order directive",
        ),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": [{"name": "b"}, {"name": "a"}]},
            id="order alone",
        ),
        pytest.param({"finalizers": ["a", "b"]}, {"finalizers": ["c"]}, {"finalizers": ["c", "a", "b"]}, id="primitive set grows"),
        pytest.param(
            {"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": ["b"]}, id="primitive set shrinks"
        ),
        pytest.param({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}, id="atomic list"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null deletes"),
        pytest.param(
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
            {"strategy": {"type": "Recreate"}},
            id="retain keys",
        ),
        pytest.param(
            {},
            {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]},
            {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]},
            id="into nothing",
        ),
    ],
)
def test_strategic_patch(document, patch, result):
    assert strategic(document, patch) == result


def test_a_strategic_patch_of_a_long_list_takes_no_time():
    def variables(of):
        return [{"name": f"E{index}", "value": of} for index in range(20_000)]

    backwards = variables("new")[::-1]
    begin = time.monotonic()
    done = strategic({"containers": variables("old")}, {"containers": backwards, "$setElementOrder/containers": backwards})
    assert time.monotonic() - begin < 3
    assert done["containers"] == backwards


@pytest.mark.parametrize(
    "patch",
    [[], {"$patch": "dance"}, {"containers": [{"image": "no key"}]}, {"containers": ["text"]}, {"$setElementOrder/containers": 1}],
)
def test_strategic_patches_that_are_none(patch):
    with pytest.raises(StatusError) as refused:
        strategic({"containers": [{"name": "a"}]}, patch)
    assert refused.value.code == 400


@given(st.permutations("abcd"), st.permutations("cdef"))
def test_a_merged_list_has_each_key_once_and_the_patchs_order(stored, given_names):
    document = {"containers": [{"name": name, "old": True} for name in stored]}
    patch = {"containers": [{"name": name, "new": True} for name in given_names]}
    names = [item["name"] for item in strategic(document, patch)["containers"]]
    assert sorted(names) == list("abcdef")
    assert [name for name in names if name in given_names] == list(given_names)
