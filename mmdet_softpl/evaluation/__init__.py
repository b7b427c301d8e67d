"""Metrics: average precision by frequency group, calibration, quality of pseudo-labels."""

from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.evaluation.pseudo_label_quality import pseudo_label_quality

__all__ = ['LongTailMetric', 'pseudo_label_quality']
