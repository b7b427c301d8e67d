"""Train a config with MMDetection's own training script, whose arguments it takes.

What ``mim train mmdet_softpl CONFIG`` runs. mmdet_softpl is imported first, which puts the
stand-in for mmcv's compiled ops in place where mmcv-lite is installed.
"""

import runpy
from pathlib import Path

import mmdet_softpl  # noqa: F401  isort: skip
import mmdet

runpy.run_path(str(Path(mmdet.__file__).parent / '.mim/tools/train.py'), run_name='__main__')
