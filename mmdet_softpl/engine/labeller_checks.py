"""What a labeller finds in the rest of a training that would make its settings idle or harmful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet.engine.hooks import MeanTeacherHook
from mmengine.runner import Runner

from mmdet_softpl.engine.burn_in_mean_teacher_hook import BurnInMeanTeacherHook
from mmdet_softpl.models.roi_adapter import stages_of
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead


def check_alignment(runner: Runner, model: Any, max_boost: float) -> None:
    """Warn where boosts meet hard labels, which have no mass by which they could be bounded."""
    if model.semi_train_cfg['label_mode'] == 'hard':
        runner.logger.warning(
            f'RareBoostPseudoLabeler: boosts of up to {max_boost:g} are not aligned with the '
            "labels, since label_mode is 'hard': a student of boosted labels becomes a boosted "
            'teacher. Keep max_boost low, or use soft labels.'
        )


def check_prototypes(runner: Runner, model: Any, prototype_weight: Sequence[float]) -> None:
    """Warn where prototypes are wanted of a head that keeps none."""
    # Evidence is that of the last stage.
    head = stages_of(model.teacher.roi_head)[-1].bbox_head
    if not isinstance(head, SmoothedCEHead):
        return
    if max(prototype_weight) > 0 and not head.keeps_prototypes:
        runner.logger.warning(
            f'RareBoostPseudoLabeler: prototype_weight={prototype_weight} has no effect, since '
            "SmoothedCEHead keeps prototypes with smoothing > 0 and smoothing_mode='similarity' "
            f'alone; it has {head.smoothing} and {head.smoothing_mode!r}.'
        )


def check_mean_teacher(runner: Runner, model: Any, prototype_weight: Sequence[float]) -> None:
    """Without a hook the teacher stays as it is; mmdet's skips buffers.

    Raises:
        ValueError: The student trains batch norm, whose statistics it would not carry over.
    """
    if not any(isinstance(h, (MeanTeacherHook, BurnInMeanTeacherHook)) for h in runner.hooks):
        runner.logger.warning(
            'RareBoostPseudoLabeler: custom_hooks has no mean-teacher hook, so the teacher stays '
            'as it is for the whole training; unless that is meant, add '
            "dict(type='mmdet_softpl.BurnInMeanTeacherHook', ...)."
        )
    hooks = [hook for hook in runner.hooks if isinstance(hook, MeanTeacherHook)]
    # With skip_buffer=False all buffers are averaged.
    if not any(hook.skip_buffers for hook in hooks):
        return
    if model.has_trainable_batch_norm:
        raise ValueError(
            "RareBoostPseudoLabeler: the student trains batch norm, whose statistics mmdet's "
            'MeanTeacherHook does not carry over; use mmdet_softpl.BurnInMeanTeacherHook, or '
            'norm_eval=True in the backbone.'
        )
    keeps = any(getattr(module, 'keeps_prototypes', False) for module in model.modules())
    if keeps and max(prototype_weight) > 0:
        runner.logger.warning(
            "RareBoostPseudoLabeler: prototype evidence stays off, since mmdet's "
            'MeanTeacherHook does not copy the prototypes into the teacher; use '
            'mmdet_softpl.BurnInMeanTeacherHook.'
        )
