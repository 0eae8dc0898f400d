"""What a build says as it goes: the classic builder's words as JSON messages (Docker Engine API, ImageBuild).

Stages run side by side, but are told one after the other, in the order of the file: the first that is not finished speaks at once, what the
others say is kept until their turn. A client that reads slowly holds the speaker up; one that is kept says no more than KEPT_MAX.
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable
from typing import Any

from atoll.build.checks import Finding
from atoll.build.state import SHORT
from atoll.build.syntax import Instruction
from atoll.build.voices import Part

KEPT_MAX = 2 << 20  # characters

Message = dict[str, Any]


async def at_once() -> None:
    """For those whose listener takes all it is told."""


class Transcript:
    """Messages go to `emit`, unless QUIET, which tells only the image; `ready` returns when more may be said."""

    def __init__(self, emit: Callable[[Message], None], ready: Callable[[], Awaitable[None]] = at_once, *, quiet: bool = False) -> None:
        self._emit = emit
        self._quiet = quiet
        self.ready = ready
        self._voices: list[StageVoice] = []
        self._told = 0

    def voice(self, part: Part) -> StageVoice:
        """The next stage's voice."""
        voice = StageVoice(self, part.first, part.steps)
        self._voices.append(voice)
        return voice

    def is_speaking(self, voice: StageVoice) -> bool:
        return self._voices[self._told] is voice if self._told < len(self._voices) else True

    def emit(self, message: Message) -> None:
        if not self._quiet:
            self._emit(message)

    def advance(self) -> None:
        """Lets finished stages say what was kept, up to the first that still speaks."""
        while self._told < len(self._voices):
            voice = self._voices[self._told]
            voice.release()
            if not voice.is_finished:
                return
            self._told += 1

    def say(self, text: str) -> None:
        self.emit({"stream": text})

    def warn(self, text: str) -> None:
        self.say(f"[Warning] {text}\n")

    def find(self, finding: Finding) -> None:
        self.warn(str(finding))

    def done(self, image_id: str, tags: list[str]) -> None:
        if self._quiet:
            self._emit({"stream": f"{image_id}\n"})
            return
        self._emit({"aux": {"ID": image_id}})
        self.say(f"Successfully built {short(image_id)}\n")
        for tag in tags:
            self.say(f"Successfully tagged {tag}\n")


class StageVoice:
    """What one stage says."""

    def __init__(self, transcript: Transcript, first: int, total: int) -> None:
        self._transcript = transcript
        self._step = first
        self._total = total
        self._kept: list[Message] = []
        self._room = KEPT_MAX
        self._container = ""
        self.is_finished = False

    def progress(self, message: Message) -> None:
        """A pull's own messages, and all others."""
        if self._transcript.is_speaking(self):
            self._transcript.emit(message)
            return
        size = len(message.get("stream") or "") + 100
        if self._room >= size:
            self._kept.append(message)
        elif self._room > 0:
            self._kept.append({"stream": f"[output clipped: more than {KEPT_MAX >> 20} MB waited for its turn]\n"})
        self._room -= size

    def release(self) -> None:
        for message in self._kept:
            self._transcript.emit(message)
        self._kept.clear()

    def finish(self) -> None:
        self.is_finished = True
        self._transcript.advance()

    def fail(self, error: Exception) -> None:
        """Says what was kept, out of turn: an error follows that none of it may come behind."""
        self.release()

    def say(self, text: str) -> None:
        self.progress({"stream": text})

    def find(self, finding: Finding) -> None:
        self.say(f"[Warning] {finding}\n")

    def step(self, instruction: Instruction) -> None:
        self.say(f"Step {self._step}/{self._total} : {instruction}\n")
        self._step += 1

    def trigger(self, instruction: Instruction) -> None:
        """They were announced all at once."""

    def now(self, image_id: str) -> None:
        self.say(f" ---> {short(image_id)}\n")

    def cached(self) -> None:
        self.say(" ---> Using cache\n")

    def running(self, container: str) -> None:
        self._container = container[:SHORT]
        self.say(f" ---> Running in {self._container}\n")

    def removed(self) -> None:
        self.say(f" ---> Removed intermediate container {self._container}\n")

    def output(self) -> Output:
        return Output(self)

    async def ready(self) -> None:
        if self._transcript.is_speaking(self):
            await self._transcript.ready()


class Output:
    """A step's bytes to text, characters that are cut by a read put together again."""

    def __init__(self, voice: StageVoice) -> None:
        self._voice = voice
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def feed(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if text:
            self._voice.say(text)
            await self._voice.ready()

    def flush(self) -> None:
        text = self._decoder.decode(b"", final=True)
        if text:
            self._voice.say(text)


def short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:SHORT]
