"""Labelling settings searched with Optuna over a dump, and judged on images kept aside.

Shape legend: I images, C foreground classes, P points.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.evaluation.label_replay import (
    LabelSettings,
    Replay,
    cross_calibrated,
    replay,
)
from mmdet_softpl.evaluation.labelling_proxy import (
    MEANS,
    GroupStatistics,
    bootstrap_difference,
    group_statistics,
    labelling_proxy,
    total,
)
from mmdet_softpl.evaluation.teacher_dump import TeacherDump
from mmdet_softpl.functional import (
    CALIBRATION_MODES,
    GROUP_NAMES,
    THRESHOLD_MODES,
    apply_calibrator,
    calibration_table,
)
from mmdet_softpl.models.teacher_labels import LabelingCfg

# Lower and upper bound, and whether the scale is logarithmic. A config's own values widen them.
FLOATS: dict[str, tuple[float, float, bool]] = {
    'alpha': (0.02, 2.0, True),
    'quantile': (0.05, 0.99, False),
    'fixed_thr': (0.1, 0.95, False),
    'thr_low': (0.05, 0.6, False),
    'thr_high': (0.6, 0.95, False),
    'boost_gamma': (0.0, 1.5, False),
    'max_boost': (1.0, 16.0, True),
    # Not above 1: a student of flatter labels becomes a flatter teacher, which no replay of one
    # teacher sees (docs/evidence.md).
    'label_temperature': (0.3, 1.0, True),
    **{f'prototype_weight_{name}': (0.0, 1.0, False) for name in GROUP_NAMES},
}
# Read by one threshold mode only; elsewhere their values would be noise to the search.
OF_MODE = {'alpha': 'prior', 'quantile': 'quantile'}
STARTUP_TRIALS = 20
# The importances compare the best tenth of the trials with all of them.
IMPORTANCE_TRIALS = 100
SUMMARY_KEYS = ('proxy', 'ece', *MEANS)


class LabelSearch:
    """Evaluates settings on one half of the images and reports on the other.

    Thresholds come from the scores of the half that is labelled, as in training. Calibration is
    fitted on labels, so on the first half it is cross-fitted (each fold by the other), and for
    the second half fitted on the first.

    Args:
        dump: Of the teacher, at least 4 images.
        statistics: Of the labelled set.
        cfg: Filters of the detector.
        object_weights: As in :func:`.replay`.
        beta: Of the F-beta of kept labels.
        seed: Of the halves and the search.

    Raises:
        ValueError: Fewer than 4 images.
    """

    def __init__(
        self,
        dump: TeacherDump,
        statistics: ClassStatistics,
        cfg: LabelingCfg,
        *,
        object_weights: Tensor | None = None,
        beta: float = 0.5,
        seed: int = 0,
    ) -> None:
        if len(dump.images) < 4:
            raise ValueError(
                f'tune: {len(dump.images)} held-out images are too few to be halved twice; give '
                'at least 4, better some hundred.'
            )
        self.dump = dump
        self.statistics = statistics
        self.cfg = cfg
        self.object_weights = object_weights
        self.beta = beta
        self.seed = seed
        order = np.random.default_rng(seed).permutation(len(dump.images))
        half = len(order) // 2
        self.tune_half, self.report_half = sorted(order[:half]), sorted(order[half:])

    def _replay(self, settings: LabelSettings, indices: Sequence[int]) -> Replay:
        return replay(
            self.dump,
            settings,
            self.statistics,
            self.cfg,
            indices=indices,
            object_weights=self.object_weights,
        )

    def tune(self, settings: LabelSettings) -> dict[str, float]:
        """The proxy and its parts on the first half."""
        return self._cross_fitted(settings, self.tune_half)

    def everywhere(self, settings: LabelSettings) -> dict[str, float]:
        """The proxy and its parts on all images."""
        return self._cross_fitted(settings, range(len(self.dump.images)))

    def _cross_fitted(self, settings: LabelSettings, indices: Sequence[int]) -> dict[str, float]:
        found = self._replay(settings, indices)
        calibrated = cross_calibrated(found, settings, every_second(len(indices)))
        return self._proxy(self._statistics(found, calibrated, settings))

    def _statistics(
        self, found: Replay, calibrated: Tensor, settings: LabelSettings
    ) -> GroupStatistics:
        # Training calibrates on images that the teacher knows by heart, unless some are held out:
        # there it lowers far less than on these.
        learned = calibrated if settings.held_out else found.scores
        return group_statistics(found, found.confidences(calibrated), learned)

    def _proxy(self, statistics: GroupStatistics) -> dict[str, float]:
        return labelling_proxy(*total(statistics), beta=self.beta)

    def report(self, settings: LabelSettings) -> tuple[dict[str, float], GroupStatistics]:
        """The proxy and its parts on the second half, which no search has seen."""
        first = self._replay(settings, self.tune_half)
        table = calibration_table(
            first.reliability(), first.state.groups, settings.calibration, settings.held_out
        )
        found = self._replay(settings, self.report_half)
        calibrated = apply_calibrator(found.scores, found.labels, table)
        statistics = self._statistics(found, calibrated, settings)
        return self._proxy(statistics), statistics

    def compare(self, old: LabelSettings, new: LabelSettings) -> dict[str, Any]:
        """Both settings on both halves, and the 95 % interval of the difference on the second.

        Returns:
            ``tune`` and ``report``, each with ``old`` and ``new``; ``interval`` (low, high) over
            images; ``verdict``: ``'better'``, ``'worse'`` or ``'cannot tell'``.
        """
        old_values, old_statistics = self.report(old)
        new_values, new_statistics = self.report(new)
        low, high = bootstrap_difference(old_statistics, new_statistics, seed=self.seed)
        verdict = 'better' if low > 0 else 'worse' if high < 0 else 'cannot tell'
        return dict(
            tune=dict(old=self.tune(old), new=self.tune(new)),
            report=dict(old=old_values, new=new_values),
            interval=(low, high),
            verdict=verdict,
        )


def every_second(num_images: int) -> Tensor:
    """(I,) bool, the two folds of cross-fitting."""
    return torch.arange(num_images) % 2 == 1


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The settings of the highest proxy on the first half.
        trials: One record a trial: ``number``, ``settings`` (a dict) and ``SUMMARY_KEYS``.
        importances: Share of the variance of the proxy by parameter, descending; empty where
            there are too few trials to tell.
    """

    best: LabelSettings
    trials: list[dict[str, Any]]
    importances: dict[str, float]


def search_settings(
    search: LabelSearch,
    start: LabelSettings,
    storage: str | os.PathLike,
    name: str,
    trials: int,
    *,
    progress: Callable[[int, int, float], None] = lambda done, total, best: None,
) -> SearchResult:
    """Try settings until ``trials`` are complete, those of earlier calls among them.

    Args:
        search: The evaluator.
        start: The config's own settings, tried first.
        storage: sqlite file of the study; made if missing.
        name: Of the study: the same name goes on.
        trials: In all, >= 1.
        progress: Called with the trials done, all of them, and the best proxy.
    """
    import optuna

    # At WARNING it shows a traceback of whatever ends a trial, Ctrl-C too; errors get out anyway.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f'sqlite:///{os.path.abspath(storage)}',
        study_name=name,
        direction='maximize',
        load_if_exists=True,
    )
    interrupted = study.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    for trial in interrupted:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    done = len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
    # Each call draws on, instead of drawing what an earlier one drew.
    study.sampler = optuna.samplers.TPESampler(
        seed=search.seed + done, n_startup_trials=STARTUP_TRIALS
    )
    own = _parameters(start, search.dump.temperatures)
    if done == 0:
        study.enqueue_trial(own)

    def objective(trial: optuna.Trial) -> float:
        values = search.tune(suggest_settings(trial, start, search.dump.temperatures))
        for key in SUMMARY_KEYS:
            trial.set_user_attr(key, values[key])
        return values['proxy']

    def report(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,), deepcopy=False)
        progress(len(complete), trials, study.best_value)

    study.optimize(objective, n_trials=max(trials - done, 0), callbacks=[report])
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    records = [
        dict(
            number=trial.number,
            settings=dataclasses.asdict(settings_of(trial.params, start)),
            **{key: trial.user_attrs[key] for key in SUMMARY_KEYS},
        )
        for trial in complete
    ]
    return SearchResult(
        best=settings_of(study.best_trial.params, start),
        trials=records,
        importances=_importances(study, len(complete)),
    )


def suggest_settings(
    trial: Any, start: LabelSettings, temperatures: Sequence[float]
) -> LabelSettings:
    """Settings that an ``optuna`` trial chooses; the space always contains ``start``."""
    own = _parameters(start, temperatures)
    params: dict[str, Any] = {}
    if 'threshold_mode' in own:
        params['threshold_mode'] = trial.suggest_categorical(
            'threshold_mode', list(THRESHOLD_MODES)
        )
    if 'calibration' in own:
        params['calibration'] = trial.suggest_categorical('calibration', list(CALIBRATION_MODES))
    mode = params.get('threshold_mode')
    for key, (low, high, log) in FLOATS.items():
        if key not in own or OF_MODE.get(key, mode) != mode:
            continue
        # A logarithmic scale has no 0.
        if own[key] > 0 or not log:
            low, high = min(low, own[key]), max(high, own[key])
        params[key] = trial.suggest_float(key, low, high, log=log)
    if temperatures:
        params['temperature'] = trial.suggest_categorical('temperature', sorted(temperatures))
    return settings_of(params, start)


def settings_of(params: dict[str, Any], start: LabelSettings) -> LabelSettings:
    """Settings from a trial's parameters; what these leave out is as in ``start``."""
    changes = {k: v for k, v in params.items() if k in LabelSettings.__dataclass_fields__}
    if 'thr_low' in params:
        changes['thr_range'] = (params['thr_low'], max(params['thr_low'], params['thr_high']))
    weights = [
        params.get(f'prototype_weight_{name}', own)
        for name, own in zip(GROUP_NAMES, start.prototype_weight, strict=True)
    ]
    changes['prototype_weight'] = tuple(weights)
    return dataclasses.replace(start, **changes)


def _parameters(settings: LabelSettings, temperatures: Sequence[float]) -> dict[str, Any]:
    """The parameters of a trial that stand for ``settings``."""
    params: dict[str, Any] = {
        'boost_gamma': settings.boost_gamma,
        'max_boost': settings.max_boost,
    }
    # Soft labels are learned whether they are kept or not: the proxy cannot judge thresholds then.
    if settings.label_mode == 'hard':
        params |= {
            'threshold_mode': settings.threshold_mode,
            'alpha': settings.alpha,
            'quantile': settings.quantile,
            'fixed_thr': settings.fixed_thr,
            'thr_low': settings.thr_range[0],
            'thr_high': settings.thr_range[1],
        }
    else:
        params['label_temperature'] = settings.label_temperature
    if settings.held_out:
        params['calibration'] = settings.calibration
    if temperatures:
        for name, weight in zip(GROUP_NAMES, settings.prototype_weight, strict=True):
            params[f'prototype_weight_{name}'] = weight
        params['temperature'] = settings.temperature or temperatures[0]
    return params


def _importances(study: Any, complete: int) -> dict[str, float]:
    """By Ped-ANOVA (arXiv 2304.10255), which needs no further library."""
    import optuna

    if complete < IMPORTANCE_TRIALS:
        return {}
    values = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    return {key: float(value) for key, value in values.items() if not math.isnan(value)}


def pareto_front(points: np.ndarray) -> np.ndarray:
    """(P,) bool: no other point is at least as good in both columns and better in one.

    Args:
        points: (P, 2), larger is better.
    """
    order = np.lexsort((-points[:, 1], -points[:, 0]))
    front = np.zeros(len(points), dtype=bool)
    best, at = -np.inf, np.nan
    for i in order:
        first, second = points[i]
        if second > best or (second == best and first == at):
            front[i] = True
            best, at = second, first
    return front
