import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.build.parser import parse
from atoll.build.plan import Plan
from atoll.build.syntax import DockerfileError
from atoll.build.words import Expander, split_words
from atoll.errors import AtollError, InvalidInput, LimitExceeded


def only(text):
    return parse(b"FROM scratch\n" + text.encode()).stages[0].body


def test_continuations_comments_and_case():
    (run,) = only("run echo a \\\n  # a comment\n\n  && echo b\n")
    assert run.name == "RUN"
    assert run.text == "echo a   && echo b"
    assert run.line == 2


def test_escape_directive():
    file = parse(b"# escape=`\nFROM scratch\nRUN a `\n  b\n")
    assert file.escape == "`"
    assert file.stages[0].body[0].text == "a   b"


def test_exec_form_only_where_it_is_json():
    cmd, entry = only('CMD ["a", "b"]\nENTRYPOINT [a, b]\n')
    assert cmd.words == ("a", "b")
    assert entry.words is None


def test_flags_come_first():
    (copy,) = only("COPY --from=x --chown=1:2 a b --link\n")
    assert copy.flags == (("from", "x"), ("chown", "1:2"))
    assert copy.text == "a b --link"


def test_heredocs():
    (run,) = only("RUN <<EOF\necho $x\nEOF\n")
    assert run.heredocs[0].content == "echo $x\n"
    assert run.heredocs[0].expand
    (quoted,) = only("RUN <<-'END' cat\n\ta\n\tEND\n")
    assert quoted.heredocs[0].content == "a\n"
    assert not quoted.heredocs[0].expand
    for text in ('RUN cat <<< "x"\n', "RUN echo $((1 << 4))\n", "RUN echo $((1<<4))\n", "RUN sh -c 'cat <<EOF'\n"):
        (fake,) = only(text)
        assert fake.heredocs == ()
    (trigger,) = only("ONBUILD RUN <<EOF\nx\nEOF\n")
    assert trigger.heredocs[0].content == "x\n"


def test_flags_with_quotes():
    (run,) = only('RUN --mount=type=cache,"target=/a b" --mount=target=/x true\n')
    assert run.every_flag("mount") == ['type=cache,"target=/a b"', "target=/x"]


def test_stages():
    file = parse(b"ARG V=1\nFROM a:$V AS Base\nRUN x\nFROM scratch\nCOPY --from=base /x /\n")
    assert [stage.name for stage in file.stages] == ["base", ""]
    plan = Plan(file, {"V": "2"})
    assert plan.bases == ["a:2", "scratch"]
    assert [stage.index for stage in plan.needed(plan.target(""))] == [0, 1]
    assert [stage.index for stage in plan.needed(plan.target("base"))] == [0]
    with pytest.raises(InvalidInput, match='target stage "no" could not be found'):
        plan.target("no")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM scratch\nFOO bar", 2, "unknown instruction: FOO"),
        ("RUN x", 1, "no build stage in current context"),
        ("", 1, "file with no instructions"),
        ("FROM", 1, "FROM requires either one or three arguments"),
        ("FROM a b c", 1, "FROM requires either one or three arguments"),
        ("FROM a AS 1x", 1, "invalid name for build stage"),
        ("FROM a\nCOPY --bogus=1 a b", 2, "unknown flag: --bogus"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc"),
        ("FROM a\nSHELL sh -c", 2, "SHELL requires the arguments to be in JSON form"),
        ("FROM a\n\n\nENV", 4, "ENV requires at least one argument"),
        ("# escape=x\nFROM a", 1, "invalid ESCAPE"),
        ("FROM a\nRUN \0", 2, "NUL"),
        ("FROM a\nRUN x\nCOPY --chown=1 --chown=2 a b", 3, "Duplicate flag specified: chown"),
        ("FROM a\nCOPY --link=maybe a b", 2, "expecting boolean value for flag link"),
        ("FROM a\nCOPY --from a b", 2, "missing a value on flag: from"),
        ("FROM a\nONBUILD FROM b", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD FOO b", 2, "unknown instruction: FOO"),
        ("ARG x", 1, "the file has no FROM"),
    ],
)
def test_errors_name_the_line(text, line, message):
    with pytest.raises(DockerfileError, match=message) as caught:
        parse(text.encode())
    assert caught.value.line == line
    assert f"line {line}" in str(caught.value)


def test_hostile_sizes_end_quickly():
    begin = time.monotonic()
    with pytest.raises(LimitExceeded):
        parse(b"FROM a\nRUN " + b"x" * (10 << 20))
    with pytest.raises(AtollError):
        parse(b"FROM a\n" * 10_000)
    parse(b"FROM a\n" + b"RUN x\n" * 10_000)
    assert time.monotonic() - begin < 2


@given(st.text(max_size=200))
def test_any_text_parses_or_names_its_line(text):
    with contextlib.suppress(DockerfileError, InvalidInput):
        parse(b"FROM a\n" + text.encode("utf-8", "surrogatepass"))


VALUES = {"A": "alpha", "EMPTY": "", "P": "/usr/local/bin", "F": "a.tar.gz"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "alpha"),
        ("${A}x", "alphax"),
        ("$Ax", ""),
        ("'$A'", "$A"),
        ('"$A b"', "alpha b"),
        ("\\$A", "$A"),
        ("${NO:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${A:+yes}", "yes"),
        ("${EMPTY:+yes}", ""),
        ("${EMPTY+yes}", "yes"),
        ("${NO:-${A}}", "alpha"),
        ("${P#*/}", "usr/local/bin"),
        ("${P##*/}", "bin"),
        ("${F%.*}", "a.tar"),
        ("${F%%.*}", "a"),
        ("${P/local/x}", "/usr/x/bin"),
        ("${A//a/o}", "olpho"),
        ("a$", "a$"),
        ("${A:?must}", "alpha"),
        ("${P%/*}", "/usr/local"),
        ("${P%%/*}", ""),
        ("${F#?}", ".tar.gz"),
        ("${P//l*l/x}", "/usr/x/bin"),
        ("${P/?o/x}", "/usr/xcal/bin"),
        ("${F%nothing}", "a.tar.gz"),
    ],
)
def test_expansion(text, value):
    assert Expander(VALUES).word(text) == value


@pytest.mark.parametrize("text", ["${", "${A", "${A:}", "'x", '"x', "${NO:?told}", "${NO?}", "${}", "${NO:-" * 30])
def test_expansion_refuses(text):
    with pytest.raises(InvalidInput):
        Expander(VALUES).word(text)


def test_variables_cannot_fill_memory():
    values = {"A": "x" * (1 << 19)}
    with pytest.raises(InvalidInput, match="expands to more than 1 MB"):
        Expander(values).word("$A" * 10)
    with pytest.raises(InvalidInput, match="expands to more than 1 MB"):
        Expander(values).heredoc("$A" * 10)


@pytest.mark.parametrize("text", ["${A#" + "*a" * 100 + "b}", "${A%" + "a*" * 100 + "}", "${A//*b/x}"])
def test_hostile_patterns_end_quickly(text):
    begin = time.monotonic()
    with contextlib.suppress(InvalidInput):
        Expander({"A": "a" * 20_000}).word(text)
    assert time.monotonic() - begin < 5


@given(st.text(alphabet="$${}ab:-+#%/'\"\\ ", max_size=40))
def test_expansion_never_fails_otherwise(text):
    try:
        Expander({"a": "b"}).word(text)
        split_words(text)
    except InvalidInput:
        pass
