"""Hooks."""

from mmdet_softpl.engine.burn_in_mean_teacher_hook import BurnInMeanTeacherHook
from mmdet_softpl.engine.held_out_calibration_hook import HeldOutCalibrationHook
from mmdet_softpl.engine.pseudo_label_visualization_hook import PseudoLabelVisualizationHook
from mmdet_softpl.engine.quick_resume_hook import QuickResumeHook
from mmdet_softpl.engine.random_state_hook import RandomStateHook
from mmdet_softpl.engine.rare_boost_pseudo_labeler import RareBoostPseudoLabeler
from mmdet_softpl.engine.validation_record_hook import ValidationRecordHook

__all__ = [
    'BurnInMeanTeacherHook',
    'HeldOutCalibrationHook',
    'PseudoLabelVisualizationHook',
    'QuickResumeHook',
    'RandomStateHook',
    'RareBoostPseudoLabeler',
    'ValidationRecordHook',
]
