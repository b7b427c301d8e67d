"""Short trainings of the settings that a search found, and whether its proxy ranked them right."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_softpl.config_file import find_hook
from mmdet_softpl.engine.short_training import (
    main_metric,
    read_validations,
    train_or_resume,
)
from mmdet_softpl.engine.tuned_config import apply_settings
from mmdet_softpl.evaluation.label_replay import LabelSettings
from mmdet_softpl.evaluation.rank_correlation import spearman
from mmdet_softpl.file_keys import file_key, settings_hash
from mmdet_softpl.progress import Progress

VALIDATIONS = 4
# Below it a rank correlation is anything by chance.
MIN_RANKED = 5


def train_settings(
    cfg: Config,
    checkpoint: str,
    start: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    count: int,
    iters: int,
    work_dir: Path,
    *,
    seed: int,
    temperatures: Sequence[float],
) -> dict[str, Any]:
    """Train the config's own settings and the ``count`` best trials from ``checkpoint``.

    Each starts with the checkpoint's weights (the teacher as a copy of the student), trains
    ``iters`` iterations with unlabelled images at a constant learning rate and is validated four
    times. One whose AP is below the median of the earlier ones at the same iteration is stopped.
    A later call goes on with what is missing.

    Args:
        cfg: Of the training.
        checkpoint: Path.
        start: Settings of the config, a dict.
        trials: Records of a search, with ``number``, ``settings`` and ``proxy``.
        count: >= 1.
        iters: Iterations of each training, >= 1.
        work_dir: Folder of the trainings and of their study.
        seed: Of the trainings.
        temperatures: Of the dump.

    Returns:
        ``metric``; ``trainings``, records with ``name``, ``settings``, ``proxy``, ``score`` (None
        if stopped before a validation), ``state`` (``'complete'`` or ``'pruned'``) and
        ``work_dir``; ``rank_correlation`` of proxy and score over the complete ones (Spearman;
        None below 5); ``ranking``, a sentence about it.
    """
    import optuna

    # At WARNING it shows a traceback of whatever ends a trial, Ctrl-C too; errors get out anyway.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work_dir.mkdir(parents=True, exist_ok=True)
    ranked = sorted(trials, key=lambda trial: -trial['proxy'])
    own = next((t for t in trials if t['settings'] == start), None)
    chosen = [own] if own is not None else []
    chosen += [trial for trial in ranked if trial is not own][:count]
    trainings = {
        candidate['number']: short_config(
            cfg,
            checkpoint,
            LabelSettings.from_dict(candidate['settings']),
            iters,
            seed,
            temperatures,
        )
        for candidate in chosen
    }
    base = short_config(cfg, checkpoint, LabelSettings.from_dict(start), iters, seed, temperatures)
    study = optuna.create_study(
        storage=f'sqlite:///{os.path.abspath(work_dir / "study.db")}',
        # Trainings of another config, checkpoint or length are no measure for these.
        study_name=f'{os.path.basename(checkpoint)}-{iters}-{seed}-{_digest(base, checkpoint)}',
        direction='maximize',
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0),
        load_if_exists=True,
    )
    for running in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(running.number, state=optuna.trial.TrialState.FAIL)
    known = {
        old.user_attrs['training']: old
        for old in study.get_trials()
        if old.state.is_finished() and old.state != optuna.trial.TrialState.FAIL
    }
    progress, metric, records = Progress('short trainings'), None, []
    for index, candidate in enumerate(chosen):
        progress(index, len(chosen))
        training = trainings[candidate['number']]
        key = _digest(training, checkpoint)
        folder = work_dir / f'trial_{key}'
        if key not in known:
            trial = study.ask()
            trial.set_user_attr('training', key)
            _train(study, trial, training, folder)
            known[key] = study.trials[trial.number]
        finished = known[key]
        metric = finished.user_attrs.get('metric', metric)
        complete = finished.state == optuna.trial.TrialState.COMPLETE
        steps = finished.intermediate_values
        records.append(
            dict(
                name='config' if candidate is own else f'trial {candidate["number"]}',
                settings=candidate['settings'],
                proxy=candidate['proxy'],
                score=finished.value if complete else (steps[max(steps)] if steps else None),
                state='complete' if complete else 'pruned',
                work_dir=str(folder),
            )
        )
    progress(len(chosen), len(chosen))
    whole = [record for record in records if record['state'] == 'complete']
    correlation = rank_correlation(
        [record['proxy'] for record in whole], [record['score'] for record in whole]
    )
    return dict(
        metric=metric,
        iters=iters,
        trainings=records,
        rank_correlation=correlation,
        ranking=_sentence(correlation, len(whole)),
    )


def short_config(
    cfg: Config,
    checkpoint: str,
    settings: LabelSettings,
    iters: int,
    seed: int,
    temperatures: Sequence[float],
) -> Config:
    """The training of one setting."""
    cfg = Config(copy.deepcopy(cfg.to_dict()), filename=cfg.filename, format_python_code=False)
    apply_settings(cfg, settings, temperatures)
    cfg.load_from, cfg.resume = os.path.abspath(checkpoint), False
    # A teacher of its own would be overwritten by the checkpoint's.
    cfg.model.pop('teacher_checkpoint', None)
    cfg.train_cfg.pop('dynamic_intervals', None)
    cfg.train_cfg.update(max_iters=iters, val_interval=max(iters // VALIDATIONS, 1), val_begin=1)
    cfg.param_scheduler = []
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.checkpoint.interval = max(iters // VALIDATIONS, 1)
    found = find_hook(cfg, 'BurnInMeanTeacherHook')
    if found is not None:
        found[1].update(supervised_iters=0, burn_in_iters=0, ramp_iters=0)
    return cfg


def _train(study: Any, trial: Any, cfg: Config, folder: Path) -> None:
    """Train one trial to its end or until it is pruned, and tell the study."""
    import optuna

    scores: dict[int, float] = {}

    def heard(iteration: int, metrics: dict[str, float]) -> None:
        if iteration in scores:
            return
        name, scores[iteration] = main_metric(metrics)
        trial.set_user_attr('metric', name)
        trial.report(scores[iteration], iteration)
        if iteration < cfg.train_cfg.max_iters and trial.should_prune():
            raise optuna.TrialPruned

    try:
        # Of an earlier call that was interrupted.
        for iteration, metrics in sorted(read_validations(folder).items()):
            heard(iteration, metrics)
        train_or_resume(cfg, folder, heard)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, scores[cfg.train_cfg.max_iters])


def _digest(cfg: Config, checkpoint: str) -> str:
    """Short name of a config's values and of the file that the training starts from."""
    return settings_hash(dict(config=cfg, checkpoint=file_key(checkpoint)))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's correlation, ties at their mean rank; None below 5 pairs or without variance."""
    if len(a) < MIN_RANKED:
        return None
    correlation = spearman(a, b)
    return None if math.isnan(correlation) else correlation


def _sentence(correlation: float | None, count: int) -> str:
    if correlation is None:
        return (
            f'{count} whole trainings are too few to say whether the proxy ranks settings as '
            f'training does (at least {MIN_RANKED}, each of full length, would tell).'
        )
    return f'rank correlation of proxy and AP over {count} whole trainings: {correlation:+.2f}'
