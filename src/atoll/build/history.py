"""How an image's history tells of its steps: the classic builder's words, which `docker history` and many tools know.

A RUN is its command, behind the ARGs it saw; anything else is a comment that no shell ran, "#(nop)".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from atoll.build.config import Config, shell
from atoll.build.syntax import Instruction


def of_run(command: Sequence[str], declared: Mapping[str, str]) -> str:
    words = [f"|{len(declared)}", *(f"{name}={value}" for name, value in declared.items())] if declared else []
    return " ".join([*words, *command])


def of_files(instruction: Instruction, config: Config, what: str, target: str) -> str:
    """COPY and ADD: WHAT is the content, "file:<digest>"."""
    return comment(config, f"{instruction.name} {what} in {target} ")


def of_metadata(instruction: Instruction, before: Config, after: Config, text: str) -> str:
    """TEXT is the instruction's own, expanded; commands are told as they will run."""
    name = instruction.name
    if name in ("CMD", "ENTRYPOINT"):
        text = json.dumps(after[name.title()], ensure_ascii=False)
    flags = [f"--{flag}={value}" for flag, value in instruction.flags]
    return comment(before, " ".join(["", name, *flags, text]))


def comment(config: Config, text: str) -> str:
    return f"{' '.join(shell(config))} #(nop) {text}"
