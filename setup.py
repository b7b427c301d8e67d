"""Adds what `mim` looks for to the wheel; everything else is in pyproject.toml.

The top-level ``configs/`` is the only source of the configs. A wheel carries a copy in
``mmdet_softpl/.mim/``, beside the scripts that ``mim train`` and ``mim test`` start.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_PATHS = ('configs', 'model-index.yml', 'tools/train.py', 'tools/test.py')


class BuildWithMim(build_py):
    """``build_py`` that also copies :data:`MIM_PATHS`, except into an editable install."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmdet_softpl' / '.mim'
        # A build folder that was used before may hold configs that have gone since.
        shutil.rmtree(target, ignore_errors=True)
        for path in MIM_PATHS:
            destination = target / path
            destination.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(ROOT / path, destination, ignore=ignored)
            else:
                shutil.copy2(ROOT / path, destination)


setup(cmdclass={'build_py': BuildWithMim})
