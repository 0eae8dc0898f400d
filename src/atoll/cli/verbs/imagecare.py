"""`image why|fsck`: what an image's bytes are for, and whether they are all there."""

from __future__ import annotations

import json

from atoll.cli import human
from atoll.cli.flags import Command, Flag, Options
from atoll.cli.progress import follow
from atoll.cli.session import engine
from atoll.cli.table import table

INSTRUCTION = 60  # columns


def why() -> Command:
    flags = (
        Flag("format", "", "string", "'json' for all that is known, paths in full"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
    )
    text = "Tell what each instruction of an image added, and what is hidden but still carried"
    return Command(_why, "[OPTIONS] IMAGE", text, flags, minimum=1, maximum=1)


def _why(options: Options, words: list[str]) -> int:
    found = engine().get("/atoll/images/why", {"ref": words[0]})
    if options["format"] == "json":
        print(json.dumps(found))
        return 0
    count = len(found["Layers"])
    print(f"{words[0]}: {human.size(found['Size'])} in {count} layer{'' if count == 1 else 's'}", end="")
    print(f"; {human.size(found['Hidden'])} of it hidden by later layers\n" if found["Hidden"] else "\n")
    rows = []
    for number, layer in enumerate(found["Layers"], 1):
        files = [str(layer[what]) for what in ("Added", "Changed", "Deleted")]
        text = " ".join(layer["CreatedBy"].split()) or "<unknown>"
        if not options["no-trunc"] and len(text) > INSTRUCTION:
            text = text[: INSTRUCTION - 1] + "…"
        rows.append((str(number), human.size(layer["Size"]), *files, human.size(layer["Hidden"]), text))
    print(table(("LAYER", "SIZE", "ADDED", "CHANGED", "DELETED", "HIDDEN", "INSTRUCTION"), rows))
    if found["LargestFiles"]:
        print("\nLargest files:\n")
        files_ = [(human.size(file["Size"]), str(file["Layer"]), file["Path"]) for file in found["LargestFiles"]]
        print(table(("SIZE", "LAYER", "PATH"), files_))
    if found["HiddenFiles"]:
        print("\nCarried, but replaced or deleted by a later layer (delete in the instruction that adds):\n")
        hidden = [(human.size(file["Size"]), str(file["Layer"]), str(file["HiddenBy"]), file["Path"]) for file in found["HiddenFiles"]]
        print(table(("SIZE", "LAYER", "HIDDEN BY", "PATH"), hidden))
    return 0


def fsck() -> Command:
    flags = (Flag("quiet", "q", "bool", "Tell faults only"),)
    return Command(_fsck, "[OPTIONS]", "Check that all images are on disk and are what their digests say", flags, maximum=0)


def _fsck(options: Options, _: list[str]) -> int:
    for faults in follow(engine().request("POST", "/atoll/images/check").lines(), quiet=True):
        for fault in faults["Faults"]:
            print(fault)
        if not faults["Faults"] and not options["quiet"]:
            print("All images are sound.")
        return 1 if faults["Faults"] else 0
    return 1
