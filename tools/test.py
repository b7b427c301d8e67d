"""Evaluate a checkpoint with MMDetection's own test script, whose arguments it takes.

What ``mim test mmdet_softpl CONFIG`` runs. mmdet_softpl is imported first, which puts the
stand-in for mmcv's compiled ops in place where mmcv-lite is installed.
"""

import runpy
from pathlib import Path

import mmdet_softpl  # noqa: F401  isort: skip
import mmdet

runpy.run_path(str(Path(mmdet.__file__).parent / '.mim/tools/test.py'), run_name='__main__')
