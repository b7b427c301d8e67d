"""A config that inherits another one and sets how its teacher labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from mmdet_softpl.engine.config_parts import labeller_of
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.evaluation.label_search import OF_MODE

DIGITS = 4


def labeller_arguments(settings: LabelSettings, with_prototypes: bool) -> dict[str, Any]:
    """Arguments of ``RareBoostPseudoLabeler``; those that its mode does not read are left out."""
    values: dict[str, Any] = dict(
        threshold_mode=settings.threshold_mode,
        fixed_thr=settings.fixed_thr,
        thr_range=settings.thr_range,
        boost_gamma=settings.boost_gamma,
        max_boost=settings.max_boost,
    )
    for key, mode in OF_MODE.items():
        if settings.threshold_mode == mode:
            values[key] = getattr(settings, key)
    if with_prototypes:
        values['prototype_weight'] = settings.prototype_weight
    return {key: _rounded(value) for key, value in values.items()}


def apply_settings(cfg: Config, settings: LabelSettings, temperatures: Sequence[float]) -> None:
    """Set the labelling of a config, in place.

    Args:
        cfg: With a ``CalibratedSoftTeacher`` and a ``RareBoostPseudoLabeler``.
        settings: Ours.
        temperatures: Of the dump, the head's own first; empty without prototypes.

    Raises:
        ConfigPartError: There is no labeller.
    """
    _, hook = labeller_of(cfg)
    hook.update(labeller_arguments(settings, bool(temperatures)))
    cfg.model.setdefault('semi_train_cfg', {})
    cfg.model.semi_train_cfg.update(_detector_arguments(settings))
    if _new_temperature(settings, temperatures):
        heads = cfg.model.detector.roi_head.bbox_head
        head = heads[-1] if isinstance(heads, list) else heads
        head.temperature = settings.temperature


def tuned_config_text(
    cfg: Config, base: str, settings: LabelSettings, temperatures: Sequence[float], comment: str
) -> str:
    """Source of a config that inherits ``base`` and does what :func:`apply_settings` does.

    Args:
        cfg: The config ``base``, read.
        base: Path as the new file's ``_base_`` is to name it.
        settings: Ours.
        temperatures: As in :func:`apply_settings`.
        comment: Lines for the head of the file.
    """
    index, _ = labeller_of(cfg)
    arguments = labeller_arguments(settings, bool(temperatures))
    lines = [f'# {line}' for line in comment.splitlines()]
    lines += [f'_base_ = {base!r}', '', 'custom_hooks = _base_.custom_hooks']
    lines += [f'custom_hooks[{index}].update(']
    lines += [f'    {key}={value!r},' for key, value in arguments.items()]
    lines += [')', '']
    detector = ''
    if _new_temperature(settings, temperatures):
        if isinstance(cfg.model.detector.roi_head.bbox_head, list):
            lines += [
                'bbox_head = _base_.model.detector.roi_head.bbox_head',
                f'bbox_head[-1].update(temperature={settings.temperature!r})',
            ]
            detector = 'bbox_head=bbox_head'
        else:
            detector = f'bbox_head=dict(temperature={settings.temperature!r})'
        detector = f'    detector=dict(roi_head=dict({detector})),\n'
    own = ', '.join(f'{key}={value!r}' for key, value in _detector_arguments(settings).items())
    lines += [
        'model = dict(',
        f'    semi_train_cfg=dict({own}),',
    ]
    return '\n'.join(lines) + f'\n{detector})\n'


def _detector_arguments(settings: LabelSettings) -> dict[str, Any]:
    """Keys of ``semi_train_cfg``; hard labels have no temperature."""
    values: dict[str, Any] = dict(calibration=settings.calibration)
    if settings.label_mode == 'soft':
        values['label_temperature'] = _rounded(settings.label_temperature)
    return values


def _new_temperature(settings: LabelSettings, temperatures: Sequence[float]) -> bool:
    return bool(temperatures) and settings.temperature not in (None, temperatures[0])


def _rounded(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_rounded(item) for item in value)
    return round(value, DIGITS) if isinstance(value, float) else value
