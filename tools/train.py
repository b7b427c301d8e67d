"""Train a config with MMDetection's own training script, whose arguments it takes.

What ``mim train mmdet_softpl CONFIG`` runs. mmdet_softpl is imported first, which puts the
stand-in for mmcv's compiled ops in place where mmcv-lite is installed.
"""

import runpy
import sys
from pathlib import Path

import mmdet_softpl  # noqa: F401  isort: skip
import mmdet

from mmdet_softpl.shipped_configs import given_or_shipped

# `mim run` hands on the name of a config as it is; `mim train` and `mim test` look it up.
sys.argv[1:2] = map(given_or_shipped, sys.argv[1:2])
runpy.run_path(str(Path(mmdet.__file__).parent / '.mim/tools/train.py'), run_name='__main__')
