"""Why an image is as large as it is: what each layer added, changed and deleted, and what later layers hide but do not give back.

The layers' directories are laid over each other as overlayfs would, in memory: a tree of names, each file with its size and its layer.
"""

from __future__ import annotations

import heapq
import os
import stat
from dataclasses import dataclass, field
from typing import Any

from atoll.images.model import Image
from atoll.images.treewalk import OPAQUE, is_whiteout

LARGEST = 20  # files named of each kind

Tree = dict[str, "Tree | tuple[int, int]"]
"""Names in a directory: a directory of its own, or a file's size and the number of its layer."""


@dataclass(slots=True)
class Story:
    """What one layer did. `hidden`: bytes of it that later layers cover or delete."""

    created_by: str
    size: int
    added: int = 0
    changed: int = 0
    deleted: int = 0
    hidden: int = 0


@dataclass(slots=True)
class _Overlaying:
    stories: list[Story]
    number: int = 0
    inodes: set[int] = field(default_factory=set)  # of the layer at hand: further names of a file weigh nothing
    covered: list[tuple[int, str, int, int]] = field(default_factory=list)  # size, path, its layer, the layer that hides it

    def add_layer(self, directory: str, tree: Tree) -> None:
        self.inodes.clear()
        self._directory(directory, "", tree)
        self.number += 1

    def _directory(self, directory: str, path: str, tree: Tree) -> None:
        story = self.stories[self.number]
        if tree and _is_opaque(directory):
            for name, node in tree.items():
                story.deleted += self._cover(node, f"{path}/{name}")
            tree.clear()
        with os.scandir(directory) as entries:
            for entry in entries:
                name, full = entry.name, f"{path}/{entry.name}"
                info = entry.stat(follow_symlinks=False)
                below = tree.get(name)
                if is_whiteout(info):
                    if below is not None:
                        story.deleted += self._cover(tree.pop(name), full)
                elif stat.S_ISDIR(info.st_mode):
                    if not isinstance(below, dict):
                        if below is not None:
                            story.changed += self._cover(below, full)
                        below = tree[name] = {}
                    self._directory(entry.path, full, below)
                else:
                    if below is None:
                        story.added += 1
                    else:
                        story.changed += 1
                        self._cover(below, full)
                    tree[name] = self._weight(info), self.number

    def _weight(self, info: os.stat_result) -> int:
        if not stat.S_ISREG(info.st_mode) or (info.st_nlink > 1 and info.st_ino in self.inodes):
            return 0
        self.inodes.add(info.st_ino)
        return info.st_size

    def _cover(self, node: Tree | tuple[int, int], path: str) -> int:
        """Notes files that are seen no more; how many they are."""
        if isinstance(node, dict):
            return sum(self._cover(child, f"{path}/{name}") for name, child in node.items())
        size, layer = node
        self.stories[layer].hidden += size
        if size:
            self.covered.append((size, path, layer, self.number))
        return 1


def explain(image: Image) -> dict[str, Any]:
    """{"Id", "Size", "Hidden", "Layers": [...], "LargestFiles": [...], "HiddenFiles": [...]}; layers count from 1. Blocks: it walks all."""
    steps = [str(step.get("created_by", "")) for step in image.config.get("history") or [] if not step.get("empty_layer")]
    stories = [Story(steps[number] if number < len(steps) else "", layer.size) for number, layer in enumerate(image.layers)]
    overlaying = _Overlaying(stories)
    tree: Tree = {}
    for layer in image.layers:
        overlaying.add_layer(os.fspath(layer.directory), tree)
    return {
        "Id": image.id,
        "Size": image.size,
        "Hidden": sum(story.hidden for story in stories),
        "Layers": [
            {
                "ID": layer.diff_id,
                "CreatedBy": story.created_by,
                "Size": story.size,
                "Added": story.added,
                "Changed": story.changed,
                "Deleted": story.deleted,
                "Hidden": story.hidden,
            }
            for layer, story in zip(image.layers, stories, strict=True)
        ],
        "LargestFiles": [
            {"Path": _shown(path), "Size": size, "Layer": layer + 1} for size, path, layer in heapq.nlargest(LARGEST, _files(tree, ""))
        ],
        "HiddenFiles": [
            {"Path": _shown(path), "Size": size, "Layer": layer + 1, "HiddenBy": by + 1}
            for size, path, layer, by in heapq.nlargest(LARGEST, overlaying.covered)
        ],
    }


def _files(tree: Tree, path: str) -> list[tuple[int, str, int]]:
    found: list[tuple[int, str, int]] = []
    for name, node in tree.items():
        if isinstance(node, dict):
            found += _files(node, f"{path}/{name}")
        elif node[0]:
            found.append((node[0], f"{path}/{name}", node[1]))
    return found


def _is_opaque(directory: str) -> bool:
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
