"""Ids and names: 64 hex digits, and, for who names nothing, an adjective and a feature of the sea."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

from atoll.errors import InvalidInput

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
NAME_MAX = 255

_ADJECTIVES = [
    "amber",
    "ancient",
    "azure",
    "bold",
    "brave",
    "breezy",
    "bright",
    "brisk",
    "calm",
    "clear",
    "coral",
    "crisp",
    "deep",
    "dreamy",
    "drifting",
    "eager",
    "early",
    "easy",
    "fair",
    "fleet",
    "floating",
    "gentle",
    "gleaming",
    "golden",
    "hidden",
    "hushed",
    "indigo",
    "jolly",
    "keen",
    "lively",
    "lucid",
    "mellow",
    "misty",
    "nimble",
    "noble",
    "northern",
    "open",
    "pearly",
    "placid",
    "proud",
    "quick",
    "quiet",
    "radiant",
    "rolling",
    "rosy",
    "salty",
    "serene",
    "sheltered",
    "shining",
    "silent",
    "silver",
    "sleepy",
    "smooth",
    "snug",
    "spry",
    "steady",
    "still",
    "sunlit",
    "sunny",
    "swift",
    "tidal",
    "tranquil",
    "turquoise",
    "vivid",
    "wandering",
    "warm",
    "western",
    "wild",
    "windy",
    "wise",
    "zesty",
]
_NOUNS = [
    "albatross",
    "anchor",
    "anemone",
    "archipelago",
    "bay",
    "beach",
    "beacon",
    "bonito",
    "breaker",
    "breeze",
    "buoy",
    "cape",
    "channel",
    "clam",
    "cliff",
    "coast",
    "cockle",
    "compass",
    "conch",
    "cove",
    "crab",
    "current",
    "cuttlefish",
    "dolphin",
    "dory",
    "dune",
    "eddy",
    "fathom",
    "fjord",
    "foam",
    "grotto",
    "gull",
    "halyard",
    "harbour",
    "heron",
    "island",
    "islet",
    "jetty",
    "kelp",
    "lagoon",
    "lantern",
    "limpet",
    "lobster",
    "manatee",
    "mangrove",
    "marlin",
    "minnow",
    "mooring",
    "narwhal",
    "nautilus",
    "oyster",
    "palm",
    "pearl",
    "pelican",
    "pier",
    "plover",
    "porpoise",
    "puffin",
    "quay",
    "reef",
    "regatta",
    "sail",
    "sandbar",
    "schooner",
    "seahorse",
    "shallows",
    "shoal",
    "shore",
    "skiff",
    "spray",
    "squid",
    "starfish",
    "strait",
    "surf",
    "swell",
    "tern",
    "tide",
    "trawler",
    "turtle",
    "urchin",
    "voyage",
    "wave",
    "whelk",
    "wharf",
]


def new_id() -> str:
    return secrets.token_hex(32)


def random_name(taken: Container[str]) -> str:
    while True:
        name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
        if name not in taken:
            return name
        name += secrets.token_hex(2)
        if name not in taken:
            return name


def check_name(name: str) -> str:
    """`name` without the leading slash that Docker's own answers carry. Raises InvalidInput with Docker's words."""
    bare = name.removeprefix("/")
    if not _NAME.fullmatch(bare) or len(bare) > NAME_MAX:
        raise InvalidInput(f"Invalid container name ({name[:80]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare
