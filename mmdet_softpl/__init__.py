"""Better pseudo-labels for semi-supervised, long-tailed instance segmentation.

Importing the package imports neither torch nor mmdet. It puts the stand-in for mmcv's
compiled ops in place (:mod:`mmdet_softpl.ops`), lets mmengine resume its own checkpoints
and makes the names of our classes known to mmdet (:mod:`mmdet_softpl.compat`).
"""

from mmdet_softpl import compat, ops
from mmdet_softpl._version import __version__

__all__ = ['__version__']

ops.install()
compat.install()
