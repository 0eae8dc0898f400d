"""How a build goes, as BuildKit's clients show it: vertices with names, times, logs and warnings (moby.buildkit.v1, StatusResponse).

A `Board` hears of one build as a Narrator and keeps what it heard, so that a client who asks late is told all of it. Only steps that make
something are vertices: FROM, RUN, COPY, ADD and WORKDIR, numbered within their stage; ENV and its like are settings.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from atoll.build.buildkit import messages
from atoll.build.buildkit.failures import message_of
from atoll.build.checks import Finding
from atoll.build.state import SCRATCH
from atoll.build.syntax import Instruction
from atoll.build.voices import Part
from atoll.errors import InvalidInput
from atoll.images import parse

SHOWN = frozenset({"RUN", "COPY", "ADD", "WORKDIR"})
LOG_MAX = 2 << 20  # bytes of one step, as in the reference implementation
BATCH_MAX = 1 << 20  # bytes of one answer
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
TRANSFERRED = frozenset({"Pull complete", "Download complete", "Already exists", "Pushed", "Layer already exists"})
STATUS_S = 0.1  # between two words on the same transfer


class Board:
    """Of one build; REF is its name, FILE what its Dockerfile is called."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self._count = 0
        self._said: list[tuple[str, Any]] = []  # field of StatusResponse, and what goes there
        self._more = asyncio.Event()
        self._ended = False
        self.source: Any = None  # the Dockerfile, as SourceInfo, once it is known
        self.failed: Instruction | None = None
        self._findings: list[Finding] = []
        self._definition = ""

    # hearing

    def vertex(self, name: str, inputs: tuple[str, ...] = ()) -> Vertex:
        self._count += 1
        return Vertex(self, f"sha256:{hashlib.sha256(f'{self.ref}/{self._count}'.encode()).hexdigest()}", name, inputs)

    @contextmanager
    def task(self, name: str) -> Iterator[Vertex]:
        """A vertex for as long as the block runs, which bears its error."""
        vertex = self.vertex(name)
        vertex.start()
        try:
            yield vertex
        except asyncio.CancelledError:
            vertex.complete("context canceled")
            raise
        except Exception as error:
            vertex.complete(message_of(error))
            raise
        vertex.complete()

    def failed_task(self, name: str, error: str) -> None:
        """What could not be done, and need not be."""
        vertex = self.vertex(name)
        vertex.start()
        vertex.complete(error)

    def defined(self, filename: str, data: bytes, vertex: Vertex) -> None:
        """The Dockerfile has been read: errors and warnings will point into it."""
        self.source = messages.SourceInfo(filename=filename, data=data, language="Dockerfile")
        self._definition = vertex.digest

    def voice(self, part: Part) -> StageVoice:
        return StageVoice(self, part)

    def warn(self, text: str) -> None:
        self._warn(text, "", "", 0)

    def find(self, finding: Finding) -> None:
        self._findings.append(finding)
        self._warn(str(finding), finding.text, rule_url(finding.rule), finding.line)

    @property
    def findings(self) -> list[Finding]:
        return list(self._findings)

    def _warn(self, short: str, detail: str, url: str, line: int) -> None:
        warning = messages.VertexWarning(vertex=self._definition, level=1, short=short.encode(), url=url)
        if detail:
            warning.detail.append(detail.encode())
        if self.source is not None and line:
            warning.info.CopyFrom(self.source)
            warning.ranges.add(start={"line": line}, end={"line": line})
        self.say("warnings", warning)

    def say(self, field: str, message: Any) -> None:
        self._said.append((field, message))
        self._more.set()

    def end(self) -> None:
        self._ended = True
        self._more.set()

    # telling

    async def follow(self) -> AsyncIterator[Any]:
        """StatusResponses, from the beginning to the end of the build."""
        position = 0
        while True:
            self._more.clear()
            while position < len(self._said):
                answer, size = messages.StatusResponse(), 0
                while position < len(self._said) and size < BATCH_MAX:
                    field, message = self._said[position]
                    getattr(answer, field).append(message)
                    size += message.ByteSize()
                    position += 1
                yield answer
            if self._ended:
                return
            await self._more.wait()


class Vertex:
    """One line of the display."""

    def __init__(self, board: Board, digest: str, name: str, inputs: tuple[str, ...]) -> None:
        self.digest = digest
        self._board = board
        self._name = name
        self._inputs = inputs
        self._started = 0
        self._cached = False
        self._completed = False
        self._room = LOG_MAX
        self._statuses: dict[str, tuple[int, float]] = {}  # when each began, and when it was last told

    def start(self) -> None:
        self._started = time.time_ns()
        self._tell()

    def cached(self) -> None:
        self._cached = True

    def complete(self, error: str = "") -> None:
        if not self._completed:
            self._completed = True
            self._tell(error=error)

    def _tell(self, error: str = "") -> None:
        vertex = messages.Vertex(digest=self.digest, inputs=self._inputs, name=self._name, cached=self._cached, error=error)
        vertex.started.MergeFrom(messages.moment(self._started))
        if self._completed:
            vertex.completed.MergeFrom(messages.moment(time.time_ns()))
        self._board.say("vertexes", vertex)

    def log(self, data: bytes, stream: int = 1) -> None:
        if self._room <= 0:
            return
        if len(data) > self._room:
            data = data[: self._room] + b"\n[output clipped, log limit %dMiB reached]\n" % (LOG_MAX >> 20)
        self._room -= len(data)
        now = messages.timestamp(time.time_ns())
        self._board.say("logs", messages.VertexLog(vertex=self.digest, timestamp=now, stream=stream, msg=data))

    def transfer(self, message: dict[str, Any]) -> None:
        """How far a push or a pull has come, as the Engine API has it."""
        detail = message.get("progressDetail") or {}
        status, name = message.get("status") or "", message.get("id") or ""
        if status and name:
            is_done = status in TRANSFERRED or status.startswith("Mounted")
            self.status(f"{status.lower()} {name}", detail.get("current") or 0, detail.get("total") or 0, done=is_done)

    def status(self, name: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        """How far a part of it has come."""
        now = time.time_ns()
        began, told = self._statuses.get(name, (now, 0.0))
        if not done and time.monotonic() - told < STATUS_S:
            return
        self._statuses[name] = (began, time.monotonic())
        status = messages.VertexStatus(ID=name, vertex=self.digest, current=current, total=total, timestamp=messages.timestamp(now))
        status.started.MergeFrom(messages.moment(began))
        if done:
            status.completed.MergeFrom(messages.moment(now))
        self._board.say("statuses", status)


class StageVoice:
    """Tells of one stage."""

    def __init__(self, board: Board, part: Part) -> None:
        self._board = board
        self._part = part
        steps = sum(one.name in SHOWN for one in part.stage.body)
        self._total = steps + (not part.begins_with_stage and part.base.lower() != SCRATCH)
        self._step = 0
        self._now: Instruction | None = None
        self._vertex: Vertex | None = None
        self._before: tuple[str, ...] = ()

    def step(self, instruction: Instruction) -> None:
        self._now = instruction
        if instruction.name == "FROM":
            if not self._part.begins_with_stage and self._part.base.lower() != SCRATCH:
                self._begin(f"FROM {_canonical(self._part.base)}")
        elif instruction.name in SHOWN:
            self._begin(shown(instruction))

    def trigger(self, instruction: Instruction) -> None:
        self._now = instruction
        if instruction.name in SHOWN:
            self._total += 1
            self._begin(f"ONBUILD {shown(instruction)}")

    def _begin(self, text: str) -> None:
        self._step += 1
        stage, total = self._part.stage, max(self._total, self._step)
        name = stage.name or (f"stage-{stage.index}" if stage.index else "")
        width = len(str(total))
        self._vertex = self._board.vertex(f"[{name + ' ' if name else ''}{self._step:>{width}}/{total}] {text}", self._before)
        self._vertex.start()

    def now(self, image_id: str) -> None:
        if self._vertex is not None:
            self._before = (self._vertex.digest,)
            self._vertex.complete()
        self._vertex = None

    def cached(self) -> None:
        if self._vertex is not None:
            self._vertex.cached()

    def running(self, container: str) -> None:
        """Which container it is, is the engine's affair."""

    def removed(self) -> None:
        """Likewise."""

    def output(self) -> Output:
        return Output(self._vertex)

    def say(self, text: str) -> None:
        if self._vertex is not None:
            self._vertex.log(text.encode("utf-8", "replace"))

    def find(self, finding: Finding) -> None:
        self._board.find(finding)

    def progress(self, message: dict[str, Any]) -> None:
        if self._vertex is not None:
            self._vertex.transfer(message)

    def fail(self, error: Exception) -> None:
        self._board.failed = self._now
        if self._vertex is not None:
            self._vertex.complete(message_of(error))

    def finish(self) -> None:
        """The last step has told it."""


class Output:
    """A step's bytes, as they come."""

    def __init__(self, vertex: Vertex | None) -> None:
        self._vertex = vertex

    async def feed(self, data: bytes) -> None:
        if self._vertex is not None:
            self._vertex.log(data)

    def flush(self) -> None:
        """Nothing is kept."""


def rule_url(rule: str) -> str:
    """Where the reference explains a build check."""
    words = _WORDS.sub("-", rule).lower()
    return f"https://docs.docker.com/go/dockerfile/rule/{words}/"


def shown(instruction: Instruction) -> str:
    """An instruction as a vertex's name; of a here-document, its beginning."""
    text = str(instruction)
    if instruction.heredocs:
        first, *more = instruction.heredocs[0].content.split("\n", 1)
        text += f" ({first}{'...' if more and more[0] else ''})"
    return text


def _canonical(reference: str) -> str:
    try:
        return str(parse(reference).with_default_tag())
    except InvalidInput:
        return reference
