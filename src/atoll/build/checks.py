"""Build checks: what a Dockerfile does that works but is likely not meant (Docker reference, "Build checks"), as warnings.

Each rule has the name the reference gives it, so that `# check=skip=Name` and searches work as elsewhere. What can be told from the text
is told before the first step; variables and working directories, which depend on the base image, when their step comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from atoll.build.arguments import argument_words
from atoll.build.state import SCRATCH
from atoll.build.syntax import Dockerfile, DockerfileError, Instruction
from atoll.build.words import Expander, split_words
from atoll.errors import InvalidInput

RESERVED_NAMES = frozenset({"context", SCRATCH})
SECRET_WORDS = re.compile(r"(?:^|_)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE)
NOT_SECRET = re.compile(r"(?:^|_)(?:public|file|version|path|dir)(?:_|$)", re.IGNORECASE)
ONCE = frozenset({"CMD", "ENTRYPOINT", "HEALTHCHECK"})
PLATFORM_VARIABLES = frozenset({"$TARGETPLATFORM", "${TARGETPLATFORM}"})
PORT = re.compile(r"(?:\d+(?:-\d+)?|\$\{?\w+\}?)(?:/\S+)?$")
OPTIONS = re.compile(r"(skip|error|experimental)=(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` says it all but the line."""

    rule: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"{self.rule}: {self.text} (line {self.line})"


@dataclass(frozen=True, slots=True)
class Settings:
    """The directive `# check=skip=Rule,Rule;error=true`."""

    skipped: frozenset[str] = frozenset()
    fails: bool = False

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Raises DockerfileError."""
        skipped: frozenset[str] = frozenset()
        fails = False
        for part in filter(None, (part.strip() for part in text.split(";"))):
            match = OPTIONS.fullmatch(part)
            if not match:
                raise DockerfileError(1, f"invalid check option {part!r}: write skip=Rule,Rule or error=true")
            if match[1].lower() == "skip":
                skipped = frozenset(name.strip().lower() for name in match[2].split(","))
            elif match[1].lower() == "error":
                fails = match[2].lower() == "true"
        return cls(skipped, fails)

    def wants(self, rule: str) -> bool:
        return "all" not in self.skipped and rule.lower() not in self.skipped


def check_file(file: Dockerfile, settings: Settings, globals_: Mapping[str, str]) -> list[Finding]:
    """The warnings of a file's text, by line."""
    found = [warning for rule in RULES for warning in rule(file, globals_) if settings.wants(warning.rule)]
    return sorted(found, key=lambda warning: warning.line)


def refuse(warnings: list[Finding]) -> None:
    """For `error=true`. Raises InvalidInput naming the rules."""
    if warnings:
        rules = ", ".join(sorted({warning.rule for warning in warnings}))
        raise InvalidInput(f"lint violation found for rules: {rules}")


def _every(file: Dockerfile) -> Iterator[Instruction]:
    yield from file.arguments
    for stage in file.stages:
        yield stage.origin
        yield from stage.body


def _casing(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    words = [(one.keyword, one.line) for one in _every(file)]
    capitals = sum(word.isupper() for word, _ in words) >= sum(word.islower() for word, _ in words)
    wanted, name = (str.upper, "uppercase") if capitals else (str.lower, "lowercase")
    for word, line in words:
        if word != wanted(word):
            yield Finding("ConsistentInstructionCasing", f"Command '{word}' should match the case of the command majority ({name})", line)


def _continuations(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for one in _every(file):
        if one.has_gap:
            yield Finding("NoEmptyContinuation", f"Empty continuation line found in: {str(one)[:60]}", one.line)


def _stage_names(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    seen = set()
    for stage in file.stages:
        words = stage.origin.text.split()
        if not stage.name:
            continue
        if words[2] != words[2].lower():
            yield Finding("StageNameCasing", f"Stage name '{words[2]}' should be lowercase", stage.origin.line)
        if words[1].isupper() != stage.origin.keyword.isupper():
            yield Finding("FromAsCasing", f"'{words[1]}' and '{stage.origin.keyword}' keywords' casing do not match", stage.origin.line)
        if stage.name in RESERVED_NAMES:
            yield Finding(
                "ReservedStageName", f"Stage name should not use the same name as reserved stage {stage.name!r}", stage.origin.line
            )
        if stage.name in seen:
            text = f"Duplicate stage name {stage.name!r}, stage names should be unique"
            yield Finding("DuplicateStageName", text, stage.origin.line)
        seen.add(stage.name)


def _platforms(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for stage in file.stages:
        if stage.platform in PLATFORM_VARIABLES:
            text = f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the default behavior"
            yield Finding("RedundantTargetPlatform", text, stage.origin.line)
        elif stage.platform and "$" not in stage.platform:
            text = f'FROM --platform flag should not use constant value "{stage.platform}"'
            yield Finding("FromPlatformFlagConstDisallowed", text, stage.origin.line)


def _from_arguments(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    declared = {name for one in file.arguments for name, _ in argument_words(one, Expander(globals_, file.escape))} | set(globals_)
    for stage in file.stages:
        expander = Expander(globals_, file.escape)
        try:
            expander.word(stage.base)
            expander.word(stage.platform)
        except InvalidInput:
            continue  # the plan says so, as an error
        for name in sorted(expander.used - declared):
            text = f"FROM argument '{name}' is not declared{_meant(name, declared)}"
            yield Finding("UndefinedArgInFrom", text, stage.origin.line)


def _default_arguments(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    """Whether a FROM would be empty or broken were no --build-arg given."""
    defaults: dict[str, str] = {}
    for instruction in file.arguments:
        for name, value in argument_words(instruction, Expander(defaults, file.escape)):
            defaults[name] = value or ""
    for stage in file.stages:
        expander = Expander(defaults, file.escape)
        try:
            base = expander.word(stage.base)
        except InvalidInput:
            continue
        if expander.used & set(defaults) and (not base or base.endswith((":", "@", "/")) or base.startswith((":", "/")) or "//" in base):
            text = f"Default value for ARG {stage.base} results in empty or invalid base image name"
            yield Finding("InvalidDefaultArgInFrom", text, stage.origin.line)


def _json_arguments(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for stage in file.stages:
        has_shell = any(one.name == "SHELL" for one in stage.body)
        for one in stage.body:
            if one.name in ("CMD", "ENTRYPOINT") and one.words is None and not has_shell:
                text = f"JSON arguments recommended for {one.name} to prevent unintended behavior related to OS signals"
                yield Finding("JSONArgsRecommended", text, one.line)


def _legacy_pairs(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for stage in file.stages:
        for one in stage.body:
            if one.name in ("ENV", "LABEL") and "=" not in split_words(one.text, file.escape)[0]:
                text = f'"{one.name} key=value" should be used instead of legacy "{one.name} key value" format'
                yield Finding("LegacyKeyValueFormat", text, one.line)


def _maintainer(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for one in _every(file):
        if one.name == "MAINTAINER":
            text = "Maintainer instruction is deprecated in favor of using label"
            yield Finding("MaintainerDeprecated", text, one.line)


def _repeated(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for stage in file.stages:
        for name in sorted(ONCE):
            for one in [one for one in stage.body if one.name == name][:-1]:
                text = f"Multiple {name} instructions should not be used in the same stage because only the last one will be used"
                yield Finding("MultipleInstructionsDisallowed", text, one.line)


def _secrets(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for one in _every(file):
        if one.name not in ("ARG", "ENV"):
            continue
        words = split_words(one.text, file.escape)
        names = [word.partition("=")[0] for word in (words if one.name == "ARG" or "=" in words[0] else words[:1])]
        for name in names:
            if SECRET_WORDS.search(name) and not NOT_SECRET.search(name):
                text = f'Do not use ARG or ENV instructions for sensitive data ({one.name} "{name}")'
                yield Finding("SecretsUsedInArgOrEnv", text, one.line)


def _ports(file: Dockerfile, globals_: Mapping[str, str]) -> Iterator[Finding]:
    for one in _every(file):
        for word in one.text.split() if one.name == "EXPOSE" else ():
            protocol = word.partition("/")[2]
            if protocol != protocol.lower() and "$" not in protocol:
                yield Finding("ExposeProtoCasing", f"Defined protocol '{word}' in EXPOSE instruction should be lowercase", one.line)
            elif not PORT.match(word) and ":" in word:
                text = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                yield Finding("ExposeInvalidFormat", text, one.line)


RULES: tuple[Callable[[Dockerfile, Mapping[str, str]], Iterator[Finding]], ...] = (
    *(_casing, _continuations, _stage_names, _platforms, _from_arguments, _default_arguments, _json_arguments),
    *(_legacy_pairs, _maintainer, _repeated, _secrets, _ports),
)


def undefined_variables(instruction: Instruction, known: Mapping[str, str], escape: str) -> Iterator[Finding]:
    """UndefinedVar: names an instruction uses that nothing has declared and that have no default beside them."""
    expander = Expander(known, escape)
    flags = " ".join(value for _, value in instruction.flags)
    try:
        for word in instruction.words or (instruction.text,):
            expander.word(word)
        expander.word(flags)
    except InvalidInput:
        return  # the step itself says so, as an error
    for name in sorted(expander.bare - set(known)):
        yield Finding("UndefinedVar", f"Usage of undefined variable '${name}'{_meant(name, known)}", instruction.line)


def workdir_is_relative(instruction: Instruction, path: str, *, is_known: bool) -> Finding | None:
    if path.startswith("/") or is_known:
        return None
    text = f"Relative workdir {json.dumps(path)} can have unexpected results if the base image changes"
    return Finding("WorkdirRelativePath", text, instruction.line)


def ignored_source(instruction: Instruction, word: str) -> Finding:
    text = f"Attempting to {instruction.name.capitalize()} file {json.dumps(word)} that is excluded by .dockerignore"
    return Finding("CopyIgnoredFile", text, instruction.line)


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1, 0.8)
    return f" (did you mean {close[0]}?)" if close else ""
