"""``python -m quiesce``."""

import sys

from quiesce.cli import main

sys.exit(main())
