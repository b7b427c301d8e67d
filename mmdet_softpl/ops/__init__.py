"""Stand-in for mmcv's compiled ops, used where only ``mmcv-lite`` is installed.

MMDetection imports ``mmcv.ops``, which needs the extension module ``mmcv._ext``. ``mmcv-lite`` is
the same package without it. :func:`install` lets that import succeed with the few ops that
two-stage detectors call. A compiled ``mmcv._ext`` always wins. Nothing else in the package imports
this folder.
"""

from mmdet_softpl.ops.install import active, describe, install

__all__ = ['active', 'describe', 'install']
