"""Whether the validation gives the figure that the best checkpoint is chosen by."""

from __future__ import annotations

from mmdet.engine.runner import TeacherStudentValLoop
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmdet_softpl.evaluation.longtail_metric import LongTailMetric

NETWORKS = ('teacher/', 'student/')


def check_best_checkpoint(runner: Runner) -> None:
    """Check ``save_best`` of a training's checkpoints; mmengine looks at the first validation.

    Args:
        runner: About to train.

    Raises:
        ValueError: No metric of the validation gives that figure.
    """
    loop = runner._val_loop
    if loop is None:
        return
    networks = NETWORKS if isinstance(loop, TeacherStudentValLoop) else ('',)
    metrics = loop.evaluator.metrics
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or not hook.save_best:
            continue
        for key in hook.key_indicators:
            if key != 'auto' and not any(_gives(m, n, key) for m in metrics for n in networks):
                beginnings = sorted(f'{n}{m.prefix}/...' for m in metrics for n in networks)
                raise ValueError(
                    f'default_hooks.checkpoint: save_best={key!r}, but val_evaluator gives '
                    f'{", ".join(beginnings)}; give one of its figures, or save_best=None.'
                )


def _gives(metric: BaseMetric, network: str, key: str) -> bool:
    """Whether a metric may give a figure; of ours, whether it looks at boxes or masks at all."""
    beginning = f'{network}{metric.prefix}/' if metric.prefix else network
    name = key.removeprefix(beginning)
    if not key.startswith(beginning):
        return False
    return not isinstance(metric, LongTailMetric) or name.split('_')[0] in metric.iou_types
