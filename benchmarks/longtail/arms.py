"""The arms of the benchmark and their configs at a preset's sizes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_softpl.cli.demo import replace_prefix

from .knobs import KNOBS, turn
from .presets import Preset

CONFIGS = Path(__file__).resolve().parent / 'configs'
# Stands for the folder of the data set, which is not a setting.
DATA_ROOT = 'DATA/'


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        title: What it adds to ``previous``.
        previous: The arm that it is compared with, if any.
        burn_in: Arms of one name and seed share their supervised iterations.
        stem: Burn-ins of one name and seed share their first iterations, in which no head smooths
            and nothing is pasted.
        unlabeled: Whether it learns from unlabelled images after the burn-in.
        knob: It is ``previous`` with this one of ``KNOBS`` at this value, and has no file.
    """

    title: str
    previous: str | None
    burn_in: str
    stem: str = 'uniform-draws'
    unlabeled: bool = True
    knob: tuple[str, float] | None = None


ARMS = {
    '0': Arm('supervised, cross entropy', None, 'plain', unlabeled=False),
    '1': Arm('+ uniform smoothing', '0', 'uniform', unlabeled=False),
    '2': Arm('+ similarity smoothing', '1', 'similarity', unlabeled=False),
    '3': Arm('one-hot teacher on the head of 0', '0', 'plain'),
    '4': Arm('one-hot teacher on the head of 2', '3', 'similarity'),
    '5': Arm('+ soft labels of every object', '4', 'similarity'),
    '5v': Arm('+ labels from two views', '5', 'similarity'),
    '6a': Arm('+ frequency boost, thresholds per class', '5v', 'similarity'),
    '6': Arm('+ prototype evidence', '6a', 'similarity'),
    '7': Arm('+ calibrated targets: the full method', '6', 'similarity'),
    '8': Arm('+ student-side correction', '7', 'similarity'),
    '0-true': Arm('0 + true labels of the unlabelled images: a bound', '0', 'plain'),
    '0-rfs': Arm('0 + repeat-factor sampling', '0', 'plain-rfs', 'rfs', unlabeled=False),
    '7-rfs': Arm('7 + repeat-factor sampling', '7', 'similarity-rfs', 'rfs'),
    '5-plain': Arm('5 on the head of 0', '5', 'plain'),
    '7-defaults': Arm(
        '7 with the defaults of detector and labeller (unsup_weight 2)', '7', 'similarity'
    ),
    # It has another temperature, so another burn-in.
    '7-tuned': Arm('7 with what `softpl tune` chose', '7', 'similarity-temperature-0.05'),
    '7-tuned-kept': Arm(
        '7-defaults with what a proxy of kept labels chose', '7-defaults', 'similarity'
    ),
    '7-heldout': Arm('7, calibrated on a held-out tenth', '7', 'similarity-fit', 'fit'),
    'soft-teacher': Arm("mmdet's SoftTeacher (boxes) on the head of 0", '3', 'plain'),
    '0-normed': Arm('0 with a normalised classifier', '0', 'normed', 'normed', unlabeled=False),
    '0-true-normed': Arm(
        '0-normed + true labels of the unlabelled images: a bound', '0-normed', 'normed', 'normed'
    ),
    '2-normed': Arm(
        '0-normed + similarity smoothing',
        '0-normed',
        'similarity-normed',
        'normed',
        unlabeled=False,
    ),
    '3-normed': Arm('3 with a normalised classifier', '3', 'normed', 'normed'),
    '3-shipped': Arm(
        '3-normed with unsup_weight 1, as the shipped configs', '3-normed', 'normed', 'normed'
    ),
    '7-normed': Arm('7 with a normalised classifier', '7', 'similarity-normed', 'normed'),
    '7-shipped': Arm(
        '7-normed with unsup_weight 1, as the shipped configs',
        '7-normed',
        'similarity-normed',
        'normed',
    ),
    '7-shipped-tuned': Arm(
        '7-shipped with what `softpl tune` chose', '7-shipped', 'similarity-normed', 'normed'
    ),
    '7-shipped-tuned-225': Arm(
        '7-shipped with what `softpl tune` chose on cpu-225-labeled',
        '7-shipped',
        'similarity-normed',
        'normed',
    ),
    '0-pasted': Arm(
        '0-normed + objects pasted into labelled images',
        '0-normed',
        'normed-pasted',
        'normed',
        unlabeled=False,
    ),
    '3-pasted': Arm(
        '3-shipped + objects pasted into labelled images', '3-shipped', 'normed-pasted', 'normed'
    ),
    '7-pasted': Arm(
        '7-shipped + objects pasted into labelled images',
        '7-shipped',
        'similarity-normed-pasted',
        'normed',
    ),
    '3-pasted-all': Arm(
        '3-pasted + objects pasted into unlabelled images', '3-pasted', 'normed-pasted', 'normed'
    ),
    '7-pasted-all': Arm(
        '7-pasted + objects pasted into unlabelled images',
        '7-pasted',
        'similarity-normed-pasted',
        'normed',
    ),
    '0-seesaw': Arm('0 with Seesaw loss', '0', 'seesaw', 'seesaw', unlabeled=False),
    '2-seesaw': Arm('2 with Seesaw loss', '2', 'similarity-seesaw', 'seesaw', unlabeled=False),
    '7-seesaw': Arm('7 with Seesaw loss', '7', 'similarity-seesaw', 'seesaw'),
}

# Everything but student-side correction, which is off by default (docs/DESIGN.md, section 4).
FULL_METHOD = '7'

# What the shipped configs have; the one-hot teacher and supervised training on their classifier,
# the former with their weight of unlabelled images.
SHIPPED, SHIPPED_TEACHER, SHIPPED_SUPERVISED = '7-shipped', '3-shipped', '0-normed'
# The same on images with pasted objects, which the shipped configs have, too.
PASTED, PASTED_TEACHER, PASTED_SUPERVISED = '7-pasted-all', '3-pasted-all', '0-pasted'

ARMS |= {
    f'{arm}-{name}-{value:g}': Arm(
        f'{arm} with {name} {value:g} instead of {knob.default:g}',
        arm,
        ARMS[arm].burn_in
        + (f'-{name}-{value:g}' if knob.owner in ('box head', 'data set') else ''),
        ARMS[arm].stem,
        ARMS[arm].unlabeled,
        knob=(name, value),
    )
    for arm, knobs in KNOBS.items()
    for name, knob in knobs.items()
    for value in knob.values
}
# What runs where no arm is named: each value of a knob is another hour of a core and seed.
MAIN_ARMS = tuple(name for name, arm in ARMS.items() if arm.knob is None)


def arm_config(arm: str, preset: Preset, seed: int, device: str = 'cpu') -> Config:
    """The arm's config with the preset's numbers; trains from the first to the last iteration.

    Args:
        arm: Name in ``ARMS``.
        preset: Sizes and schedule.
        seed: Of weights, batches and augmentation.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        The config; its data are where ``placed`` puts them.
    """
    knob, previous = ARMS[arm].knob, ARMS[arm].previous
    read = Config.fromfile(CONFIGS / f'arm-{previous if knob else arm}.py')
    cfg = replace_prefix(read.to_dict(), read.data_root, DATA_ROOT)
    if knob is not None and previous is not None:
        turn(cfg, previous, *knob)
    detector = cfg['model']['detector']
    _merge(detector, preset.network)
    heads = detector['roi_head']
    heads['mask_head']['num_classes'] = preset.data.num_classes
    box = heads['bbox_head']
    box['num_classes'] = preset.data.num_classes
    if box['loss_cls']['type'] == 'SeesawLoss':
        box['loss_cls']['num_classes'] = preset.data.num_classes
    if box['type'].endswith('SmoothedCEHead'):
        # Prototypes five times as fresh as the thresholds that rest on them.
        box.update(
            warmup_iters=preset.smoothing_iters,
            refresh_interval=max(preset.refresh_interval // 5, 1),
        )
    if cfg['model']['type'].endswith('CalibratedSoftTeacher'):
        cfg['model']['semi_train_cfg']['refresh_interval'] = preset.refresh_interval
    for hook in cfg['custom_hooks']:
        if hook['type'].endswith('BurnInMeanTeacherHook'):
            hook.update(
                momentum=preset.momentum,
                supervised_iters=preset.supervised_iters,
                ramp_iters=preset.ramp_iters,
            )
        elif hook['type'].endswith(('RareBoostPseudoLabeler', 'HeldOutCalibrationHook')):
            hook['interval'] = preset.refresh_interval
    loader = cfg['train_dataloader']
    loader.update(batch_size=2 * preset.labeled_per_batch)
    if preset.num_workers and device != 'cpu':
        loader.update(num_workers=preset.num_workers, persistent_workers=True, pin_memory=True)
    loader['batch_sampler']['supervised_iters'] = preset.supervised_iters
    cfg['train_cfg']['max_iters'] = preset.max_iters
    # mmengine ends a schedule with the run, and a checkpoint carries that end: without one of its
    # own, arms that resume from the burn-in would never drop their learning rate.
    cfg['param_scheduler'][1].update(milestones=[preset.lr_drop], end=preset.max_iters)
    # mmengine counts its warm-up in iterations; a tiny run has fewer than 50.
    cfg['param_scheduler'][0]['end'] = min(50, preset.supervised_iters)
    cfg['default_hooks']['checkpoint']['interval'] = preset.curve_interval
    cfg['randomness'] = dict(seed=seed)
    # mmengine formats the config's text at every checkpoint, a second of CPU each time.
    return Config(cfg, filename=read.filename, format_python_code=False)


def placed(cfg: Config, data_root: Path) -> Config:
    """A copy of an arm's config with the folder of the data set in its paths."""
    plain = replace_prefix(cfg.to_dict(), DATA_ROOT, f'{data_root}/')
    return Config(plain, filename=cfg.filename, format_python_code=False)


def burn_in_config(cfg: Config, preset: Preset) -> Config:
    """The supervised part alone of an arm's config."""
    short = copy.deepcopy(cfg)
    short.train_cfg.max_iters = preset.supervised_iters
    return short


def stem_config(cfg: Config, preset: Preset) -> Config:
    """The first iterations of an arm's config: no head smooths yet, and nothing is pasted."""
    short = copy.deepcopy(cfg)
    short.train_cfg.max_iters = preset.stem_iters
    dataset = short.train_dataloader.dataset
    if dataset.type.endswith('RareCopyPasteDataset'):
        dataset.type = 'ConcatDataset'
        for name in ('unlabeled', 'max_num_pasted'):
            dataset.pop(name, None)
    head = short.model.detector.roi_head.bbox_head
    if head.type.endswith('SmoothedCEHead'):
        head.smoothing_mode = 'none'
        # Without smoothing these are nothing that two stems could differ in.
        for name in ('smoothing', 'temperature'):
            head.pop(name, None)
    return short


def settings_of(cfg: Config) -> dict[str, Any]:
    """The config as plain values, as json gives them back."""
    return json.loads(json.dumps(cfg.to_dict(), default=str))


def differences(old: Any, new: Any, path: str = '') -> dict[str, tuple[Any, Any]]:
    """Values that differ between two nested dicts and lists, by dotted key; None for absent."""
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys([*old, *new]):
            name = f'{path}.{key}' if path else str(key)
            found |= differences(old.get(key), new.get(key), name)
        return found
    return {} if old == new else {path: (old, new)}


def _merge(node: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(node[key], value)
        else:
            node[key] = copy.deepcopy(value)
