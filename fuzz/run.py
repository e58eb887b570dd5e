"""Fuzzes the readers of all input formats; ``fuzz_run`` says how, ``python fuzz/run.py --help`` what it takes."""

import sys

from fuzz_run import main

if __name__ == "__main__":
    sys.exit(main())
