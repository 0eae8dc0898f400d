"""`--call`: what a file tells of itself, in the words BuildKit 0.25 has for it."""

import base64
import json

import pytest

from buildx_harness import context

DOCKERFILE = """\
# check=skip=all

# GLOBAL the global one
# BASE what it stands on

# UNUSED never
ARG BASE=busybox
ARG GLOBAL=g$BASE UNUSED=no
ARG LATE
# base the base stage
FROM ${BASE} AS base
# A first line
#B    second of two
ARG A=a$GLOBAL B
ARG GLOBAL
ARG TARGETPLATFORM
RUN --mount=type=secret,id=one --mount=type=ssh true
ENV X=$A
ARG E=$X

# Mid is in between
# mid is in between, small
FROM base AS Mid
RUN --mount=type=secret,target=/two,required=true --mount=type=cache,target=/c,id=kept \\
    --mount=type=ssh,id=other,required true

FROM alpine AS other
# C is of other
ARG C=1
COPY --from=mid /a /b

# not a name
FROM --platform=$BUILDPLATFORM scratch
COPY --from=other / /
"""
MID = """\
TARGET:      mid
DESCRIPTION: is in between, small

BUILD ARG   VALUE      DESCRIPTION
BASE        busybox    what it stands on
GLOBAL      gbusybox
A           a          first line
B                         second of two
E           a

SECRET   REQUIRED
one
two      true

SSH       REQUIRED
default
other     true

"""
BASE = """\
TARGET:      base
DESCRIPTION: the base stage

BUILD ARG   VALUE      DESCRIPTION
BASE        busybox    what it stands on
GLOBAL      gbusybox
A           given      first line
B           bb            second of two
E           given

SECRET   REQUIRED
one

SSH       REQUIRED
default

"""
TARGETS = """\
TARGET    DESCRIPTION
base      the base stage
mid       is in between, small
other
(default)
"""


@pytest.fixture
def call(buildx, tmp_path):
    place = str(context(tmp_path / "c", DOCKERFILE))

    def run(what, *words):
        return buildx("build", f"--call={what}", *words, place).stdout

    return run


def lines(text):
    """The client fills columns up to their width."""
    return [line.rstrip() for line in text.splitlines()]


def test_outlines(call):
    assert lines(call("outline", "--target", "mid")) == lines(MID)
    given = ("--build-arg", "A=given", "--build-arg", "LATE=x", "--build-arg", "B=bb")
    assert lines(call("outline", "--target=base", *given)) == lines(BASE)
    assert "C           1          is of other" in call("outline")
    assert "TARGET:" not in call("outline")  # it has no name


def test_an_outline_as_a_document(call):
    found = json.loads(call("outline,format=json", "--target", "other"))
    assert base64.b64decode(found.pop("sources")[0]).decode() == DOCKERFILE

    def place(first, last=0):
        return {"ranges": [{"start": {"line": first}, "end": {"line": last or first}}]}

    assert found == {
        "name": "other",
        "args": [
            {"name": "BASE", "description": "what it stands on", "value": "busybox", "location": place(7)},
            {"name": "GLOBAL", "value": "gbusybox", "location": place(8)},
            {"name": "A", "description": "first line", "value": "a", "location": place(14)},
            {"name": "B", "description": "   second of two", "location": place(14)},
            {"name": "E", "value": "a", "location": place(19)},
            {"name": "C", "description": "is of other", "value": "1", "location": place(29)},
        ],
        "secrets": [{"name": "one", "location": place(17)}, {"name": "two", "required": True, "location": place(24, 25)}],
        "ssh": [{"name": "default", "location": place(17)}, {"name": "other", "required": True, "location": place(24, 25)}],
    }


def test_targets(call):
    assert lines(call("targets")) == lines(TARGETS)
    found = json.loads(call("targets,format=json"))["targets"]
    assert [{name: value for name, value in one.items() if name != "location"} for one in found] == [
        {"name": "base", "description": "the base stage", "base": "${BASE}"},
        {"name": "mid", "description": "is in between, small", "base": "base"},
        {"name": "other", "base": "alpine"},
        {"default": True, "base": "scratch", "platform": "$BUILDPLATFORM"},
    ]


def test_what_can_be_called(call, buildx, tmp_path):
    assert [line.split()[0] for line in lines(call("subrequests.describe"))] == [
        "NAME",
        "outline",
        "targets",
        "lint",
        "subrequests.describe",
    ]
    assert "no warnings found" in call("check")
    place = str(tmp_path / "c")
    assert 'target stage "nope" could not be found' in buildx("build", "--call=outline", "--target=nope", place, check=False).stderr
    assert "the subrequest frontend.dance is not supported" in buildx("build", "--call=dance", place, check=False).stderr


def test_a_file_that_cannot_be_read_has_no_outline(buildx, tmp_path):
    place = context(tmp_path / "c", "FROM busybox\nRUN --mount=type=secret,id=a,what=b true\n")
    done = buildx("build", "--call=outline", str(place), check=False)
    assert done.returncode == 1
    assert "dockerfile parse error on line 2: unexpected key 'what'" in done.stderr
    assert buildx("build", "--call=targets", str(place)).stdout.startswith("TARGET")
