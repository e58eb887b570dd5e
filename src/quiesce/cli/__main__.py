"""``python -m quiesce.cli``."""

import sys

from quiesce.cli import main

sys.exit(main())
