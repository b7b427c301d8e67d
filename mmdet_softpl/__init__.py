"""Better pseudo-labels for semi-supervised, long-tailed instance segmentation."""

from mmdet_softpl import compat, ops

__version__ = '0.1.0'

ops.install()
compat.install()
