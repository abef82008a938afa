"""``python -m statprune``."""

import sys

from statprune.cli import main

sys.exit(main())
