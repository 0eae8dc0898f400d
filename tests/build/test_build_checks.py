"""Build checks: each rule on the least text that sets it off, and the directive that turns them off or into errors."""

import pytest

from atoll.build.arguments import Arguments
from atoll.build.checks import Settings, check_file
from atoll.build.parser import parse
from atoll.build.syntax import DockerfileError
from atoll.errors import InvalidInput


def rules(text, settings=None):
    file = parse(text.encode())
    return [(finding.rule, finding.line) for finding in check_file(file, settings or Settings(), Arguments(file, {}).globals)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a\nRUN b\nrun c", [("ConsistentInstructionCasing", 3)]),
        ("from a\nrun b\nRUN c", [("ConsistentInstructionCasing", 3)]),
        ("FROM a\nRun b", [("ConsistentInstructionCasing", 2)]),
        ("FROM a\nRUN b \\\n\n c", [("NoEmptyContinuation", 2)]),
        ("FROM a\nRUN b \\\n# comment\n c", []),
        ("FROM a AS Base", [("StageNameCasing", 1)]),
        ("FROM a as b", [("FromAsCasing", 1)]),
        ("FROM a AS scratch", [("ReservedStageName", 1)]),
        ("FROM a AS b\nFROM a AS b", [("DuplicateStageName", 2)]),
        ("FROM --platform=$TARGETPLATFORM a", [("RedundantTargetPlatform", 1)]),
        ("FROM --platform=linux/amd64 a", [("FromPlatformFlagConstDisallowed", 1)]),
        ("FROM --platform=$BUILDPLATFORM a", []),
        ("FROM a:$TAG", [("UndefinedArgInFrom", 1)]),
        ("ARG TAG\nFROM a:$TAG", [("InvalidDefaultArgInFrom", 2)]),
        ("ARG TAG=1\nFROM a:$TAG", []),
        ("FROM a\nCMD b", [("JSONArgsRecommended", 2)]),
        ('FROM a\nSHELL ["x"]\nCMD b', []),
        ('FROM a\nENTRYPOINT ["b"]', []),
        ("FROM a\nENV b c\nENV d=e", [("LegacyKeyValueFormat", 2)]),
        ("FROM a\nMAINTAINER b", [("MaintainerDeprecated", 2)]),
        ('FROM a\nCMD ["b"]\nCMD ["c"]', [("MultipleInstructionsDisallowed", 2)]),
        ("FROM a\nARG API_TOKEN\nENV DB_PASSWORD=x", [("SecretsUsedInArgOrEnv", 2), ("SecretsUsedInArgOrEnv", 3)]),
        ("FROM a\nENV PUBLIC_KEY=x MONKEY=y", []),
        ("FROM a\nEXPOSE 80/TCP", [("ExposeProtoCasing", 2)]),
        ("FROM a\nEXPOSE 127.0.0.1:80:80", [("ExposeInvalidFormat", 2)]),
        ("FROM a\nEXPOSE 80 81-90/udp $PORT", []),
    ],
)
def test_rules(text, found):
    assert rules(text) == found


def test_the_directive():
    text = "FROM a AS Base\nMAINTAINER b\n"
    assert rules(text, Settings.parse("skip=stagenamecasing")) == [("MaintainerDeprecated", 2)]
    assert rules(text, Settings.parse("skip=all")) == []
    assert Settings.parse("skip=A,B;error=true") == Settings(frozenset({"a", "b"}), fails=True)
    with pytest.raises(DockerfileError):
        Settings.parse("other=1")


def test_warnings_come_before_the_steps(build):
    out = build(
        "FROM busybox AS Base\nRUN true\nWORKDIR here\nLABEL a=$HOEM\nCOPY ignored* /\n", files={".dockerignore": "no*", "ignored": ""}
    )
    told = [line for line in out.stdout.splitlines() if line.startswith(("[Warning]", "Step"))]
    assert told[0] == "[Warning] StageNameCasing: Stage name 'Base' should be lowercase (line 1)"
    assert told[3:7] == [
        "Step 3/5 : WORKDIR here",
        '[Warning] WorkdirRelativePath: Relative workdir "here" can have unexpected results if the base image changes (line 3)',
        "Step 4/5 : LABEL a=$HOEM",
        "[Warning] UndefinedVar: Usage of undefined variable '$HOEM' (line 4)",
    ]


def test_an_ignored_source(build):
    done = build("FROM busybox\nCOPY secret /\n", files={".dockerignore": "secret\n", "secret": "x"}, check=False)
    assert '[Warning] CopyIgnoredFile: Attempting to Copy file "secret" that is excluded by .dockerignore (line 2)' in done.stdout
    assert done.returncode


def test_warnings_as_errors(build):
    done = build("# check=error=true\nFROM busybox AS Base\nRUN echo never\n", check=False)
    assert "lint violation found for rules: StageNameCasing" in done.stderr
    assert "Step" not in done.stdout
    done = build("# check=skip=StageNameCasing;error=true\nFROM busybox AS Base\nLABEL a=$NONE\n", check=False)
    assert "lint violation found for rules: UndefinedVar" in done.stderr
    assert build("# check=skip=all;error=true\nFROM busybox AS Base\nLABEL a=$NONE\n").returncode == 0


def test_settings_raise_typed_errors():
    with pytest.raises(InvalidInput, match="check option"):
        Settings.parse("error")
