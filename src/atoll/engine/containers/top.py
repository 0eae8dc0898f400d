"""`docker top`: the host's ps(1), cut to the container's processes."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Collection
from typing import Any

from atoll.errors import InvalidInput, NotSupported

PS_TIMEOUT_S = 10.0


async def top(pids: Collection[int], arguments: str) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...]]}. Raises InvalidInput where ps does not take the arguments."""
    if re.search(r"\bpid\s*=", arguments):
        raise InvalidInput('specifying "pid=" as a ps argument is not allowed')
    try:
        process = await asyncio.create_subprocess_exec(
            "ps", *shlex.split(arguments or "-ef"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise NotSupported("docker top needs the program ps on the host: apt-get install procps") from None
    except ValueError as error:
        raise InvalidInput(f"invalid ps arguments: {error}") from error
    async with asyncio.timeout(PS_TIMEOUT_S):
        output, complaint = await process.communicate()
    if process.returncode:
        raise InvalidInput(f"ps: {complaint.decode(errors='replace').strip()}")
    return parse(output.decode(errors="replace"), pids)


def parse(output: str, pids: Collection[int]) -> dict[str, Any]:
    """Rows of ps output that belong to `pids`; the last column takes what is left of its line."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidInput("Couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return {"Titles": titles, "Processes": [row for row in rows if len(row) > column and row[column] in wanted]}
