"""What is known of one teacher does not hold for another."""

from __future__ import annotations

from typing import Any

from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mmdet_softpl.engine.runner_model import model_of

STATE_PREFIX = 'class_state.'
COUNTER = 'num_iters'


def forget_labelling(runner: Runner, checkpoint: dict[str, Any]) -> None:
    """Take boosts, thresholds, calibration and their counter out of a checkpoint.

    They belong to the labelled set and the teacher of that training. For hooks that are told of a
    checkpoint before the model gets it; nothing happens on a resume and outside of training.

    Args:
        runner: About to train with ``load_from``.
        checkpoint: What it has read; changed.
    """
    if runner._resume or runner._has_loaded:
        return
    if not isinstance(getattr(runner, '_train_loop', None), BaseLoop):
        return
    state = checkpoint.get('state_dict', checkpoint)
    for key in [key for key in state if key.startswith(STATE_PREFIX) or key == COUNTER]:
        del state[key]


def forget_teacher(runner: Runner) -> None:
    """Drop what the labels of a teacher that was just replaced came to.

    Boosts, thresholds and calibration stay until the next refresh, which then rests on the new
    teacher alone.

    Args:
        runner: Training; hooks that keep statistics of the teacher have ``forget_teacher()``.
    """
    for hook in runner.hooks:
        if hasattr(hook, 'forget_teacher'):
            hook.forget_teacher()
    class_state = getattr(model_of(runner), 'class_state', None)
    if class_state is not None:
        class_state.clear(*class_state.ACCUMULATORS, 'reliability')
