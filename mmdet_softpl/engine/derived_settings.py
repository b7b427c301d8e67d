"""What a config's settings come to on its data: boosts, expected pseudo-labels, passes.

Shape letters: C classes, in label order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmdet_softpl.config_file import find_hook
from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.datasets.config_findings import LABELLER, batch_shares
from mmdet_softpl.datasets.config_sets import LABELLED, UNLABELLED, keeps_empty
from mmdet_softpl.datasets.set_contents import SetContents
from mmdet_softpl.models.label_policy import LabelPolicy

_SHOWN = ('threshold_mode', 'alpha', 'fixed_thr', 'thr_range', 'boost_gamma', 'max_boost')


@dataclass(frozen=True)
class LabellerSettings:
    """What ``RareBoostPseudoLabeler`` will start from and aim at.

    Attributes:
        arguments: of the config, or its defaults: threshold mode, alpha, bounds, boost.
        boosts: (C,) factors >= 1 of the teacher's scores (design, section 4).
        expected_per_image: (C,) pseudo-labels an unlabelled image, alpha * n_c / M, which mode
            ``prior`` sets the thresholds for; None in other modes.
    """

    arguments: dict[str, Any]
    boosts: np.ndarray
    expected_per_image: np.ndarray | None


@dataclass(frozen=True)
class TrainingLength:
    """How often a training on one GPU sees its images; with G GPUs G times as often.

    Attributes:
        max_iters: iterations in all.
        supervised_iters: of them, on labelled images alone.
        labelled_per_batch, unlabelled_per_batch: images of one GPU.
        labelled_passes: over the labelled images of the first source, repeats counted.
        supervised_passes: of them, before the unlabelled images come.
        unlabelled_passes: over the unlabelled images, after the supervised part; 0 without any.
    """

    max_iters: int
    supervised_iters: int
    labelled_per_batch: int
    unlabelled_per_batch: int
    labelled_passes: float
    supervised_passes: float
    unlabelled_passes: float


def labeller_settings(
    cfg: Mapping[str, Any], statistics: ClassStatistics
) -> LabellerSettings | None:
    """Boosts and expected pseudo-labels of a config.

    Args:
        cfg: a config.
        statistics: of the labelled set.

    Returns:
        The settings; None without ``RareBoostPseudoLabeler``.

    Raises:
        ValueError: the hook's values are out of their range.
    """
    found = find_hook(cfg, LABELLER)
    if found is None:
        return None
    _, hook = found
    policy = LabelPolicy(**LabelPolicy.given_by(hook))
    empty = keeps_empty(cfg, hook.get('labeled_ann_file') or '')
    rate = replace(statistics, keeps_empty=empty).labelled_rate()
    return LabellerSettings(
        arguments={name: getattr(policy, name) for name in _SHOWN},
        boosts=policy.frequency_boosts(statistics).numpy(),
        expected_per_image=policy.alpha * rate if policy.threshold_mode == 'prior' else None,
    )


def training_length(cfg: Mapping[str, Any], sets: Sequence[SetContents]) -> TrainingLength | None:
    """Passes over the data.

    Args:
        cfg: a config.
        sets: what its sets hold.

    Returns:
        The length; None where it is not counted in iterations, or the batch is not drawn by
        ``MultiSourceSampler``.
    """
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    max_iters = (cfg.get('train_cfg') or {}).get('max_iters')
    ratio = list(sampler.get('source_ratio') or ())
    supervised = next(
        (h['supervised_iters'] for h in cfg.get('custom_hooks') or () if 'supervised_iters' in h),
        0,
    )
    if not max_iters or not ratio or not isinstance(supervised, int):
        return None
    shares = batch_shares(sampler.get('batch_size') or 0, ratio)
    batch, passes = {}, {}
    for role, iters in ((LABELLED, max_iters), (UNLABELLED, max(max_iters - supervised, 0))):
        of_role = [s for s in sets if s.configured.role == role]
        sources = {s.configured.source for s in of_role}
        batch[role] = sum(n for source, n in enumerate(shares) if source in sources)
        # A source of its own, such as generated images, has a share of its own.
        first = min(sources, default=0)
        images = sum(s.epoch_images for s in of_role if s.configured.source == first)
        share = shares[first] if first < len(shares) else 0
        passes[role] = iters * share / images if images else 0.0
    return TrainingLength(
        max_iters=max_iters,
        supervised_iters=supervised,
        labelled_per_batch=batch[LABELLED],
        unlabelled_per_batch=batch[UNLABELLED],
        labelled_passes=passes[LABELLED],
        supervised_passes=passes[LABELLED] * min(supervised / max_iters, 1.0),
        unlabelled_passes=passes[UNLABELLED],
    )
