"""The detector benchmark: `python benchmarks/longtail/run.py --preset cpu`; see `--help`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

if __name__ == '__main__':
    # As a script it would see the modules of this folder, not the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from benchmarks.longtail.command import main

    # Asked to end, it leaves as after Ctrl-C, and so do its runs.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
