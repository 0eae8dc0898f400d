"""What a build says as it goes: the classic builder's words as JSON messages (Docker Engine API, ImageBuild)."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from typing import Any

from atoll.build.sources import Tree
from atoll.build.syntax import Instruction

SHORT = 12


class Transcript:
    """Messages go to `emit` as dicts. It also keeps what must stay open until the build's end."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        self._emit = emit
        self.total = 0
        self._count = 0
        self._container = ""
        self._kept: list[Tree] = []

    def say(self, text: str) -> None:
        self._emit({"stream": text})

    def progress(self, message: dict[str, Any]) -> None:
        """A pull's own messages."""
        self._emit(message)

    def step(self, instruction: Instruction) -> None:
        self._count += 1
        self.say(f"Step {self._count}/{self.total} : {instruction}\n")

    def now(self, short: str) -> None:
        self.say(f" ---> {short}\n")

    def cached(self) -> None:
        self.say(" ---> Using cache\n")

    def running(self, container: str) -> None:
        self._container = container[:SHORT]
        self.say(f" ---> Running in {self._container}\n")

    def removed(self) -> None:
        self.say(f" ---> Removed intermediate container {self._container}\n")

    def output(self) -> Output:
        return Output(self.say)

    def done(self, image_id: str, tags: list[str]) -> None:
        self._emit({"aux": {"ID": image_id}})
        self.say(f"Successfully built {image_id.removeprefix('sha256:')[:SHORT]}\n")
        for tag in tags:
            self.say(f"Successfully tagged {tag}\n")

    def keep(self, tree: Tree) -> Tree:
        self._kept.append(tree)
        return tree

    def close(self) -> None:
        for tree in self._kept:
            os.close(tree.root)
        self._kept.clear()


class Output:
    """A step's bytes to text, characters that are cut by a read put together again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        text = self._decoder.decode(data)
        if text:
            self._say(text)

    def flush(self) -> None:
        text = self._decoder.decode(b"", final=True)
        if text:
            self._say(text)
