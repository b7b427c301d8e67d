"""Hooks."""

from mmdet_softpl.engine.burn_in_mean_teacher_hook import BurnInMeanTeacherHook
from mmdet_softpl.engine.random_state_hook import RandomStateHook
from mmdet_softpl.engine.rare_boost_pseudo_labeler import RareBoostPseudoLabeler

__all__ = ['BurnInMeanTeacherHook', 'RandomStateHook', 'RareBoostPseudoLabeler']
