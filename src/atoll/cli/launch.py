"""What the `atoll` launcher runs: `python -I -S launch.py SITE-PACKAGES ARGV0 WORDS...`.

-S leaves out the import of `site` (25 ms in a virtual environment), so the two folders it would have found are put on the path here: the
one that holds this package, and the environment's site-packages for everything else.
"""

import os
import sys


def launch() -> int:
    site, name, *words = sys.argv[1:]
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.path[:] = [source, *(path for path in sys.path if path != os.path.dirname(__file__)), *({site} - {source})]
    sys.argv = [name, *words]
    from atoll.cli.main import main

    return main(words)


if __name__ == "__main__":
    sys.exit(launch())
