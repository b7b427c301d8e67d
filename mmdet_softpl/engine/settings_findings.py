"""What a training would refuse of a config's settings, found by building its parts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.registry import DefaultScope

from mmdet_softpl.config_file import type_name
from mmdet_softpl.datasets.config_findings import LABELLER
from mmdet_softpl.datasets.config_sets import LABELLED, UNLABELLED, dataset_leaves
from mmdet_softpl.datasets.findings import ERROR, WARNING, Finding
from mmdet_softpl.datasets.set_contents import SetContents
from mmdet_softpl.models.semi_train_cfg import DEFAULTS

from .best_checkpoint import configured_fault
from .burn_in_mean_teacher_hook import BurnInMeanTeacherHook
from .derived_settings import LabellerSettings, TrainingLength
from .measured_masks import mask_fault
from .view_checks import check_views

PACKAGE = 'mmdet_softpl'
# Between the 14 passes after which a weight of 2 did harm in docs/evidence.md and the 24 that
# ``new-config`` gives.
EARLY_PASSES = 20
# Between the most and the least frequent class, as in any long tail.
FAR_APART = 10
_REMEDY = 'correct it: a training stops here too'


def settings_findings(
    cfg: Mapping[str, Any], sets: Sequence[SetContents], length: TrainingLength | None
) -> list[Finding]:
    """Build the model, the hooks of this package and the pipelines of a config, without weights.

    What else a training is made of (optimizer, loops, loggers, other hooks) is not looked at.

    Args:
        cfg: A config.
        sets: What its sets hold; hooks that read a labelled set with errors are left out.
        length: Of the training, where it is known.

    Returns:
        An error for whatever cannot be built or would not work together, and a warning of
        unlabelled images that come early, or never.
    """
    with DefaultScope.overwrite_default_scope('mmdet'):
        findings = [
            *_model(cfg),
            *_hooks(cfg, sets),
            *_mean_teacher(cfg),
            *_pipelines(cfg),
            *_pasting((cfg.get('train_dataloader') or {}).get('dataset')),
            *_validation(cfg),
        ]
    if findings:
        return findings
    return [*_never(length), *_early(cfg, sets, length)]


def boost_findings(labeller: LabellerSettings, image_counts: np.ndarray) -> list[Finding]:
    """A warning where a boost is asked for, classes are far apart, and none is boosted.

    Args:
        labeller: What the config's labeller starts from.
        image_counts: (C,) labelled images of each class.
    """
    seen = image_counts[image_counts > 0]
    asked = labeller.arguments['boost_gamma'] > 0 and labeller.arguments['max_boost'] > 1
    if not asked or (labeller.boosts > 1).any() or not len(seen):
        return []
    fewest = int(seen.min())
    if seen.max() < FAR_APART * fewest:
        return []
    return [
        Finding(
            WARNING,
            f'custom_hooks, {LABELLER}',
            'boost that boosts no class',
            f'{int((seen == fewest).sum())} of {len(seen)} classes are in {fewest} labelled '
            f'image{"s" if fewest != 1 else ""}, and no class is in fewer than the median class',
            'no change is needed: rare classes still have thresholds of their own and get their '
            'labelled share of the labels; only a boost beyond that is not there',
        )
    ]


def _error(subject: str, error: Exception) -> Finding:
    # mmengine writes a header and source lines around what a constructor raises.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return Finding(ERROR, subject, 'refused setting', ' '.join(str(text).split()), _REMEDY)


def _model(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    if not cfg.get('model'):
        return
    try:
        MODELS.build(copy.deepcopy(cfg['model'])).train()
    except Exception as error:  # Whatever a detector raises, it raises at the start of a training.
        # MMSyncBN asks for the processes of a distributed training when it is made.
        if 'process group' not in str(error):
            yield _error('model', error)


def _hooks(cfg: Mapping[str, Any], sets: Sequence[SetContents]) -> Iterator[Finding]:
    labelled = [one for one in sets if one.configured.role == LABELLED]
    sound = not any(f.severity == ERROR for one in labelled for f in one.findings)
    for index, hook in enumerate(cfg.get('custom_hooks') or ()):
        if not isinstance(hook, Mapping) or 'type' not in hook:
            detail = f'{hook!r} has no type'
            yield Finding(ERROR, f'custom_hooks[{index}]', 'refused setting', detail, _REMEDY)
            continue
        name = type_name(hook['type'])
        subject = f'custom_hooks[{index}], {name}'
        cls = hook['type'] if isinstance(hook['type'], type) else HOOKS.get(str(hook['type']))
        if cls is None:
            detail = 'no hook of this name is registered'
            remedy = 'correct it, or import its module in custom_imports'
            yield Finding(ERROR, subject, 'unknown hook', detail, remedy)
            continue
        if not cls.__module__.startswith(PACKAGE):
            continue
        known = [p for p in inspect.signature(cls).parameters if p not in ('args', 'kwargs')]
        given = [key for key in hook if key not in ('type', 'priority', '_scope_', *known)]
        if given:
            yield Finding(
                ERROR,
                subject,
                'unknown argument',
                ', '.join(f'{key}={hook[key]!r}' for key in given),
                f'it takes {", ".join(known) or "none"}',
            )
        elif sound or 'labeled_ann_file' not in hook:
            try:
                HOOKS.build({k: copy.deepcopy(v) for k, v in hook.items() if k != 'priority'})
            except FileNotFoundError:
                continue  # A finding about the file says it already.
            except Exception as error:
                yield _error(subject, error)


def _pipelines(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    model = cfg.get('model')
    ours = isinstance(model, Mapping) and type_name(model.get('type')) == 'CalibratedSoftTeacher'
    for key in ('train_dataloader', 'val_dataloader'):
        for index, leaf in enumerate(dataset_leaves((cfg.get(key) or {}).get('dataset'))):
            subject = f'{key}, set {index}'
            if not leaf.get('pipeline'):
                continue
            try:
                dataset = DATASETS.build(dict(copy.deepcopy(leaf), lazy_init=True))
                if ours:
                    check_views(subject, dataset)
            except FileNotFoundError:
                continue  # As above.
            except Exception as error:
                yield _error(subject, error)


def _pasting(dataset: Any) -> Iterator[Finding]:
    if not isinstance(dataset, Mapping):
        return
    if type_name(dataset.get('type')) == 'RareCopyPasteDataset':
        try:
            for leaf in dataset_leaves(dataset):
                DATASETS.build(_unread(leaf))
        except Exception:
            return  # ``_pipelines`` says so.
        try:
            DATASETS.build(_unread(dataset))
        except FileNotFoundError:
            return  # As above: ``MultiImageMixDataset`` reads what is inside it.
        except Exception as error:
            yield _error('train_dataloader, RareCopyPasteDataset', error)
    for child in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
        yield from _pasting(child)


def _unread(dataset: Any) -> Any:
    """The config of a data set that, with all data sets inside it, reads nothing yet."""
    if not isinstance(dataset, Mapping):
        return dataset
    lazy = dict(copy.deepcopy(dataset), lazy_init=True)
    if 'dataset' in lazy:
        lazy['dataset'] = _unread(lazy['dataset'])
    if 'datasets' in lazy:
        lazy['datasets'] = [_unread(child) for child in lazy['datasets']]
    return lazy


def _mean_teacher(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """A child config's ``custom_hooks`` takes the place of its base's, mean teacher included."""
    model = cfg.get('model')
    if not isinstance(model, Mapping) or type_name(model.get('type')) != 'CalibratedSoftTeacher':
        return
    for hook in cfg.get('custom_hooks') or ():
        kind = hook.get('type') if isinstance(hook, Mapping) else None
        cls = kind if isinstance(kind, type) else HOOKS.get(str(kind))
        # One that is not known is an error of its own.
        if cls is None or issubclass(cls, (MeanTeacherHook, BurnInMeanTeacherHook)):
            return
    given = model.get('teacher_checkpoint') or cfg.get('load_from')
    yield Finding(
        WARNING if given else ERROR,
        'custom_hooks',
        'no mean teacher',
        'no hook makes the teacher follow the student, so it stays '
        + (f'what {given!r} gives' if given else 'at its random start'),
        "add dict(type='mmdet_softpl.BurnInMeanTeacherHook', ...) as the base config has it: "
        "custom_hooks of a config takes the place of its base's",
    )


def _validation(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    for subject, fault in (
        ('val_evaluator', mask_fault(cfg)),
        ('default_hooks', configured_fault(cfg)),
    ):
        if fault is not None:
            yield Finding(ERROR, subject, 'refused setting', fault, _REMEDY)


def _never(length: TrainingLength | None) -> Iterator[Finding]:
    if length is not None and length.max_iters <= length.supervised_iters:
        yield Finding(
            WARNING,
            'config',
            'unlabelled images that never count',
            f'supervised_iters={length.supervised_iters:,} of {length.max_iters:,} iterations',
            'lower supervised_iters of BurnInMeanTeacherHook where you lower max_iters, or train '
            'longer',
        )


def _early(
    cfg: Mapping[str, Any], sets: Sequence[SetContents], length: TrainingLength | None
) -> Iterator[Finding]:
    """Labels of a young teacher, at full weight, while the labelled images still teach."""
    model = cfg.get('model') or {}
    roles = {one.configured.role for one in sets if one.used_images}
    if length is None or not {LABELLED, UNLABELLED} <= roles:
        return
    if type_name(model.get('type')) != 'CalibratedSoftTeacher':
        return
    trained = model.get('teacher_checkpoint') or cfg.get('load_from')
    trained = trained or (model.get('detector') or {}).get('init_cfg')
    weight = (model.get('semi_train_cfg') or {}).get('unsup_weight', DEFAULTS['unsup_weight'])
    if trained or weight <= 1 or length.supervised_passes >= EARLY_PASSES:
        return
    yield Finding(
        WARNING,
        'config',
        'early unlabelled images',
        f'{length.supervised_passes:.1f} passes over the labelled images (on one GPU) before '
        f'unlabelled ones come with unsup_weight={weight:g}',
        'raise supervised_iters, or set semi_train_cfg.unsup_weight to 1: labels of a young '
        'teacher cost AP while labelled images still teach (docs/evidence.md)',
    )
