"""Whether a detector predicts the masks that its validation measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner

from mmdet_softpl.config_file import type_name

# Metrics that raise without masks, with what they measure where a config does not say.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    'LongTailMetric': ('bbox', 'segm'),
    'CocoMetric': ('bbox',),
    'LVISMetric': ('bbox',),
}


def check_measured_masks(runner: Runner) -> None:
    """Check the metrics of a training's config; they themselves look at the first validation.

    Args:
        runner: About to train.

    Raises:
        ValueError: A metric wants masks of a detector without a mask head.
    """
    fault = mask_fault(runner.cfg)
    if fault is not None:
        raise ValueError(fault)


def mask_fault(cfg: Mapping[str, Any]) -> str | None:
    """What is wrong with the validation of a config, found without building anything.

    Args:
        cfg: A config. Detectors without a ``roi_head`` are left alone.

    Returns:
        A sentence, or None.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        return None
    roi_head = (model.get('detector') or model).get('roi_head')
    if not isinstance(roi_head, Mapping) or roi_head.get('mask_head'):
        return None
    evaluator = cfg.get('val_evaluator') or ()
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator:
        name = type_name(metric.get('type')) if isinstance(metric, Mapping) else ''
        kinds = metric.get('metric', _DEFAULTS[name]) if name in _DEFAULTS else ()
        if 'segm' in ((kinds,) if isinstance(kinds, str) else kinds):
            return (
                f"val_evaluator, {name}: metric={kinds!r} has 'segm', but the detector has no "
                "mask head (roi_head.mask_head): set metric='bbox', and save_best of the "
                'CheckpointHook to a figure of boxes or None.'
            )
    return None
