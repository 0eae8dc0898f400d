"""`python -m atoll`: the same as the `atoll` command."""

import sys

from atoll.cli.main import main

sys.exit(main())
