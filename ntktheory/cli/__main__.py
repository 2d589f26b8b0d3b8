"""``python -m ntktheory.cli`` is the command ``ntktheory``."""

import sys

from ntktheory.cli import main

sys.exit(main())
