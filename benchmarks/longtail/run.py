"""The detector benchmark: `python benchmarks/longtail/run.py --preset cpu`; see `--help`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == '__main__':
    # As a script it would see the modules of this folder, not the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from benchmarks.longtail.command import main

    sys.exit(main())
