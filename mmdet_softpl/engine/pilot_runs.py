"""The trainings of a pilot: labelled shares, with and without unlabelled images."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.checkpoint_files import last_checkpoint
from mmdet_softpl.config_file import find_hook, type_name
from mmdet_softpl.datasets.annotation_checks import check_annotations, check_same_categories
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.datasets.config_sets import UNLABELLED, configured_sets
from mmdet_softpl.datasets.splits import write_split
from mmdet_softpl.engine.config_parts import (
    ConfigPartError,
    labelled_leaves,
    labeller_of,
)
from mmdet_softpl.engine.load_teacher import read_config
from mmdet_softpl.file_keys import settings_hash
from mmdet_softpl.models.semi_train_cfg import DEFAULTS
from mmdet_softpl.registry import HOOKS
from mmdet_softpl.same_path import same_path

KINDS = ('labelled', 'semi')
"""Trained on labelled images alone, or with unlabelled ones too."""
SETTINGS = 'settings.json'


@dataclass(frozen=True)
class PilotRun:
    """One training.

    Attributes:
        name: Unique; that of its folder where the pilot trains it.
        kind: One of ``KINDS``.
        seed: Of training and split; None for a given run.
        labeled_ann_file: What it trains on.
        images: In that file.
        labelled_images: Those with an object.
        labelled_instances: Objects.
        cfg: Of the training.
        work_dir: Of the training.
    """

    name: str
    kind: str
    seed: int | None
    labeled_ann_file: str
    images: int
    labelled_images: int
    labelled_instances: int
    cfg: Config
    work_dir: Path


def plan_runs(
    cfg: Config, shares: Sequence[float], seeds: int, iters: int | None, out: Path
) -> list[PilotRun]:
    """Splits and configs of the trainings of every share, kind and seed.

    Args:
        cfg: Of the training with unlabelled images; its labelled json is the 100 %.
        shares: Per cent of the labelled images, in (0, 100].
        seeds: Trainings of each share and kind, >= 1.
        iters: Iterations of each; phases, schedule and intervals are scaled along. None: the
            config's.
        out: Folder of the pilot.

    Raises:
        ConfigPartError: The config lacks a part, or ``out`` holds another pilot.
        AnnotationError: A share is too small for one image of every class.
    """
    _, labeller = labeller_of(cfg)
    labeled = labeller['labeled_ann_file']
    classes = _trained_classes(cfg, labeled)
    if find_hook(cfg, 'BurnInMeanTeacherHook') is None:
        raise ConfigPartError(
            f'{cfg.filename}: custom_hooks has no BurnInMeanTeacherHook, whose supervised_iters '
            'make a training on labelled images alone; add it, or give trainings with --runs.'
        )
    if 'max_iters' not in cfg.train_cfg:
        raise ConfigPartError(
            f'{cfg.filename}: train_cfg has no max_iters; a pilot needs an IterBasedTrainLoop.'
        )
    own = _check_claim(cfg, labeled, iters, out)
    runs: list[PilotRun] = []
    for share in shares:
        for seed in range(seeds):
            part = _labelled_part(labeled, share, seed + 1, out / 'splits')
            summary = check_annotations(part, classes=classes)
            for kind in KINDS:
                name = f'{share:g}-{kind}-{seed}'
                runs.append(
                    PilotRun(
                        name=name,
                        kind=kind,
                        seed=seed,
                        labeled_ann_file=part,
                        images=summary.num_images,
                        labelled_images=summary.num_labelled_images,
                        labelled_instances=int(summary.instance_counts.sum()),
                        cfg=pilot_config(cfg, part, kind, iters, seed),
                        work_dir=out / 'runs' / name,
                    )
                )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, own)
    return runs


def given_runs(specs: Sequence[str], cfg: Config) -> list[PilotRun]:
    """Trainings that are there already.

    Args:
        specs: ``KIND:WORK_DIR`` each, KIND one of ``KINDS``. The config in the folder says what
            it was trained on.
        cfg: Of the pilot, whose classes they must have.

    Raises:
        ConfigPartError: A spec is malformed, or a folder has no config or no checkpoint.
        AnnotationError: A training was of other classes.
    """
    runs: list[PilotRun] = []
    labeled = labeller_of(cfg)[1]['labeled_ann_file']
    own = check_annotations(labeled, classes=_trained_classes(cfg, labeled))
    for spec in specs:
        kind, _, folder = spec.partition(':')
        if kind not in KINDS or not folder:
            raise ConfigPartError(
                f'--runs {spec!r}: give KIND:WORK_DIR with KIND labelled (trained on labelled '
                'images alone) or semi (with unlabelled ones), e.g. labelled:work_dirs/a.'
            )
        if not os.path.isdir(folder):
            raise ConfigPartError(f'--runs {spec!r}: {folder} is no folder.')
        configs = sorted(Path(folder).glob('*.py'))
        if len(configs) != 1:
            raise ConfigPartError(
                f'--runs {spec!r}: {folder} has {len(configs)} configs (*.py), one is needed: '
                'that which MMEngine copied there when the training started.'
            )
        run_cfg = read_config(str(configs[0]))
        for run in runs:
            if run.work_dir.samefile(folder):
                raise ConfigPartError(
                    f'--runs {spec!r}: the same folder as {run.kind}:{run.work_dir}.'
                )
        if kind != (found := _kind(run_cfg)):
            raise ConfigPartError(
                f'--runs {spec!r}: by its config, {configs[0]}, this training is of the kind '
                f'{found}; call it {found}:{folder}.'
            )
        part = labeller_of(run_cfg)[1]['labeled_ann_file']
        summary = check_annotations(part, classes=_trained_classes(run_cfg, part))
        check_same_categories(own, summary)
        runs.append(
            PilotRun(
                name=f'{kind}-{len(runs)}-{Path(folder).name}',
                kind=kind,
                seed=None,
                labeled_ann_file=part,
                images=summary.num_images,
                labelled_images=summary.num_labelled_images,
                labelled_instances=int(summary.instance_counts.sum()),
                cfg=run_cfg,
                work_dir=Path(folder),
            )
        )
        checkpoint_of(runs[-1])
    return runs


def _kind(cfg: Config) -> str:
    """Whether a training ends before unlabelled images come, or has none."""
    hook = find_hook(cfg, 'BurnInMeanTeacherHook')
    supervised = 0 if hook is None else hook[1].get('supervised_iters', 0)
    weight = (cfg.model.get('semi_train_cfg') or {}).get('unsup_weight', 1)
    unlabelled = any(one.role == UNLABELLED for one in configured_sets(cfg))
    alone = supervised >= (cfg.train_cfg.get('max_iters') or math.inf) or weight == 0
    labelled, semi = KINDS
    return semi if unlabelled and not alone else labelled


def _trained_classes(cfg: Config, labeled_ann_file: str) -> Sequence[str] | None:
    """Classes of the training set that reads this json; None: all of the file."""
    labelled_leaves(cfg, labeled_ann_file)
    classes = next(
        one.classes for one in configured_sets(cfg) if same_path(one.ann_file, labeled_ann_file)
    )
    # A file of names that is not there ends the training, not this.
    return None if isinstance(classes, str) else classes


def checkpoint_of(run: PilotRun) -> Path:
    """The last checkpoint of a run.

    Raises:
        ConfigPartError: There is none.
    """
    last = last_checkpoint(run.work_dir)
    if last is None:
        raise ConfigPartError(f'{run.work_dir}: there is no checkpoint; train first.')
    return last


def pilot_config(
    cfg: Config, labeled_ann_file: str, kind: str, iters: int | None, seed: int
) -> Config:
    """The config of one training.

    Without unlabelled images it is the same training with the supervised phase drawn out to the
    end: the same labelled batches, the same number of steps.
    """
    cfg = Config(copy.deepcopy(cfg.to_dict()), filename=cfg.filename, format_python_code=False)
    if iters is not None:
        scale_schedule(cfg, iters)
    _, labeller = labeller_of(cfg)
    for leaf in labelled_leaves(cfg, labeller['labeled_ann_file']):
        leaf.ann_file = os.path.abspath(labeled_ann_file)
    labeller.labeled_ann_file = os.path.abspath(labeled_ann_file)
    found = find_hook(cfg, 'BurnInMeanTeacherHook')
    if kind == 'labelled' and found is not None:
        found[1].update(supervised_iters=cfg.train_cfg.max_iters, burn_in_iters=0, ramp_iters=0)
        cfg.model.pop('teacher_checkpoint', None)
    # Each training is evaluated once, afterwards, on the held-out images.
    cfg.train_cfg.val_begin = cfg.train_cfg.max_iters + 1
    cfg.randomness = dict(seed=seed)
    return cfg


def scale_schedule(cfg: Config, iters: int) -> None:
    """Shorten (or stretch) an iteration-based training, in place: phases, schedule, intervals."""
    factor = iters / cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters = iters

    def scale(node: Any, *keys: str) -> None:
        for key in keys:
            value = node.get(key)
            if isinstance(value, (list, tuple)):
                node[key] = [max(round(item * factor), 1) for item in value]
            elif value:
                node[key] = max(round(value * factor), 1)

    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        if scheduler.get('by_epoch') is False:
            scale(scheduler, 'begin', 'end', 'milestones', 'T_max')
    for name, keys in (
        ('BurnInMeanTeacherHook', ('supervised_iters', 'burn_in_iters', 'ramp_iters')),
        ('RareBoostPseudoLabeler', ('interval',)),
        ('HeldOutCalibrationHook', ('interval',)),
    ):
        found = find_hook(cfg, name)
        if found is not None:
            # A default, where a key is not named, is for long trainings.
            for key in keys:
                found[1].setdefault(key, signature(HOOKS.get(name)).parameters[key].default)
            scale(found[1], *keys)
    if type_name(cfg.model.type) == 'CalibratedSoftTeacher':
        semi = cfg.model.setdefault('semi_train_cfg', {})
        semi.setdefault('refresh_interval', DEFAULTS['refresh_interval'])
        scale(semi, 'refresh_interval')
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint is not None:
        scale(checkpoint, 'interval')


def _labelled_part(labeled_ann_file: str, share: float, seed: int, folder: Path) -> str:
    """The json of a share of the labelled images, written unless it is there."""
    if share >= 100:
        return labeled_ann_file
    path = folder / f'{Path(labeled_ann_file).stem}.{seed}@{share:g}.json'
    if path.is_file():
        return str(path)
    try:
        return str(
            write_split(
                labeled_ann_file, folder, percent=share, seed=seed, overwrite=True
            ).labeled_file
        )
    except AnnotationError as error:
        raise AnnotationError(f'--shares {share:g}: {error}') from error


def _check_claim(
    cfg: Config, labeled_ann_file: str, iters: int | None, out: Path
) -> dict[str, Any]:
    """What the folder is of: hashes of config and labelled json, and the iterations.

    Raises:
        ConfigPartError: It is of another one, whose trainings would be taken for this one's.
    """
    own = dict(
        config=settings_hash(cfg),
        iters=iters,
        labeled_sha256=hashlib.sha256(Path(labeled_ann_file).read_bytes()).hexdigest(),
    )
    names = dict(
        config='another config',
        iters='other --iters',
        labeled_sha256=f'other content of {labeled_ann_file}',
    )
    _check_settings(out, own, names)
    return own


def claim_for_runs(runs: Sequence[PilotRun], out: Path) -> None:
    """Make the folder of a pilot of given trainings, or take it up.

    Raises:
        ConfigPartError: It is of another pilot, whose results would be replaced.
    """
    own = dict(runs=sorted(str(run.work_dir.resolve()) for run in runs))
    _check_settings(out, own, dict(runs='trainings of its own, or other --runs'))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, own)


def _check_settings(out: Path, own: dict[str, Any], names: dict[str, str]) -> None:
    path = out / SETTINGS
    claimed = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else own
    other = [key for key in own if claimed.get(key) != own[key]]
    if other:
        raise ConfigPartError(
            f'{path} is of a pilot with {" and ".join(names[key] for key in other)}; give another '
            '--out, or remove that folder.'
        )
