"""How labels change with each setting, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.functional import CALIBRATION_MODES, THRESHOLD_MODES

# alpha, quantile and fixed_thr are read by one mode each and varied in the mode that reads them.
GRIDS: dict[str, tuple[Any, ...]] = {
    'threshold_mode': THRESHOLD_MODES,
    'alpha': (0.05, 0.1, 0.2, 0.5, 1.0),
    'quantile': (0.3, 0.5, 0.7, 0.9),
    'fixed_thr': (0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    'thr_range[0]': (0.05, 0.1, 0.2, 0.3, 0.5),
    'boost_gamma': (0.0, 0.25, 0.5, 1.0),
    'max_boost': (1.0, 2.0, 4.0, 8.0, 16.0),
    'prototype_weight[rare]': (0.0, 0.25, 0.5, 0.75, 1.0),
    # Above 1 a replay of one teacher misleads, see `label_search`.
    'label_temperature': (0.3, 0.5, 0.7, 1.0),
    'calibration': CALIBRATION_MODES,
}
MODE_OF = {'alpha': 'prior', 'quantile': 'quantile', 'fixed_thr': 'fixed'}


def vary(settings: LabelSettings, knob: str, value: Any) -> LabelSettings:
    """``settings`` with one knob of ``GRIDS`` (or ``temperature``) at ``value``."""
    if knob == 'thr_range[0]':
        bounds = (float(value), max(float(value), settings.thr_range[1]))
        return dataclasses.replace(settings, thr_range=bounds)
    if knob == 'prototype_weight[rare]':
        weights = (float(value), *settings.prototype_weight[1:])
        return dataclasses.replace(settings, prototype_weight=weights)
    return dataclasses.replace(settings, **{knob: value})


def value_of(settings: LabelSettings, knob: str) -> Any:
    """The value of a knob of ``GRIDS`` (or ``temperature``)."""
    if knob == 'thr_range[0]':
        return settings.thr_range[0]
    if knob == 'prototype_weight[rare]':
        return settings.prototype_weight[0]
    return getattr(settings, knob)


def sensitivity(
    evaluate: Callable[[LabelSettings], dict[str, float]],
    settings: LabelSettings,
    temperatures: Sequence[float] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[dict[str, Any]]]:
    """Evaluate ``settings`` with each knob at each value of its grid, all others as they are.

    Args:
        evaluate: Values of the proxy, see :func:`.labelling_proxy`.
        settings: The starting point; its own values are on the grids.
        temperatures: Of the dump; empty where the head keeps no prototypes, whose knobs are then
            left out.
        progress: Called with evaluations done and all.

    Returns:
        Knob to records ``value``, ``own`` (whether it is that of ``settings``) and the values of
        ``evaluate``.
    """
    grids = {
        k: v
        for k, v in GRIDS.items()
        if MODE_OF.get(k, settings.threshold_mode) == settings.threshold_mode
    }
    if not settings.held_out:
        # Calibrated on training images, which a replay does not have.
        grids.pop('calibration')
    if settings.label_mode == 'hard':
        grids.pop('label_temperature')
    if temperatures:
        grids['temperature'] = tuple(sorted(temperatures))
    else:
        grids.pop('prototype_weight[rare]')
    total = sum(len({*grid, _own(settings, k, temperatures)}) for k, grid in grids.items())
    found: dict[str, list[dict[str, Any]]] = {}
    done = 0
    for knob, grid in grids.items():
        own = _own(settings, knob, temperatures)
        values: list[Any] = list(grid) if own in grid else [*grid, own]
        if not isinstance(own, str):
            values.sort()
        found[knob] = []
        for value in values:
            record = dict(value=value, own=value == own)
            found[knob].append({**record, **evaluate(vary(settings, knob, value))})
            done += 1
            progress(done, total)
    return found


def _own(settings: LabelSettings, knob: str, temperatures: Sequence[float]) -> Any:
    own = value_of(settings, knob)
    return temperatures[0] if knob == 'temperature' and own is None else own
