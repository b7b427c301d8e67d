"""The two networks' parts that mmdet's configs can name."""

from mmdet_softpl.models.calibrated_soft_teacher import CalibratedSoftTeacher
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead

__all__ = ['CalibratedSoftTeacher', 'SmoothedCEHead']
