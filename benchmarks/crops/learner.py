"""Teacher and student on crops, with the thresholds of the package.

Shape letters: N crops, C classes.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.crops.data import Crops
from benchmarks.crops.network import augmented_view, build_network, test_view
from mmdet_softpl.functional import (
    GROUP_NAMES,
    per_class_thresholds,
    score_histogram,
    soft_cross_entropy,
)
from mmdet_softpl.models.class_state import SCORE_BINS

BATCH = 64
LEARNING_RATE = 2e-3
MOMENTUM = 0.01
RAMP_ITERS = 100
REFRESH_ITERS = 250
# Crops on which thresholds are set and pseudo-labels judged.
SAMPLE = 5000


@dataclass(frozen=True)
class Arm:
    """One way to use the unlabelled crops.

    Attributes:
        unlabeled: At all; else the network goes on with labelled ones.
        hard: One-hot labels of weight 1; else soft ones weighted with their confidence.
        mean_over_batch: The unlabelled loss is divided by the size of the batch, so that few
            pseudo-labels weigh little; else by the weight of those kept.
        score_thr: One threshold for all classes, or None for the package's ``'prior'`` mode.
        balanced: Unlabelled crops are drawn by the inverse square root of how often the
            teacher names their class.
        true_labels: Of the unlabelled crops, as a bound.
    """

    unlabeled: bool = True
    hard: bool = False
    mean_over_batch: bool = False
    score_thr: float | None = 0.7
    balanced: bool = False
    true_labels: bool = False


ARMS = {
    'labelled alone': Arm(unlabeled=False),
    'one-hot above 0.7': Arm(hard=True),
    'soft above 0.7': Arm(),
    '+ thresholds per class': Arm(score_thr=None),
    '+ balanced draws': Arm(score_thr=None, balanced=True),
    'one-hot above 0.7, mean over the batch': Arm(hard=True, mean_over_batch=True),
    'soft above 0.7, mean over the batch': Arm(mean_over_batch=True),
    '+ thresholds per class, mean over the batch': Arm(score_thr=None, mean_over_batch=True),
    'true labels (bound)': Arm(hard=True, score_thr=0.0, true_labels=True),
}


def train(
    crops: dict[str, Crops],
    groups: Tensor,
    arm: Arm,
    seed: int,
    iters: int,
    start: nn.Module | None = None,
    anneal: bool = True,
) -> tuple[nn.Module, dict[str, float]]:
    """Train from ``start`` (or from scratch) and measure.

    Args:
        crops: ``train``, ``unlabeled``, ``tune``.
        groups: (C,) frequency groups.
        arm: What is done with the unlabelled ones.
        seed: Of weights, batches and views.
        iters: Steps of ``BATCH`` labelled and, if used, as many unlabelled crops.
        start: Where the network and its moving average begin; left as it is.
        anneal: The learning rate falls to a tenth for the last fifth.

    Returns:
        The moving average, and its metrics: ``AP`` and ``APr``, ``APc``, ``APf`` (class by
        class on the balanced ``tune``), and for each group ``precision_`` and ``recall_`` of
        its pseudo-labels.
    """
    labelled, unlabelled = crops['train'], crops['unlabeled']
    c = len(groups)
    torch.manual_seed(seed)
    # Supervised start and continuation must not see the same views.
    generator = torch.Generator().manual_seed(2 * seed + (start is not None))
    student = copy.deepcopy(start) if start is not None else build_network(c)
    student.requires_grad_(True)
    teacher = copy.deepcopy(student).requires_grad_(False)
    counts = torch.bincount(labelled.labels, minlength=c).float()
    # Square-root sampling, close to what repeat factors do on LVIS.
    weights = counts.rsqrt()[labelled.labels]
    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [iters * 4 // 5] if anneal else [])
    sample = torch.randperm(len(unlabelled.labels), generator=generator)[:SAMPLE]
    thresholds = _thresholds(teacher, unlabelled.images[sample], counts, groups, arm)
    draws = _draws(teacher, unlabelled.images, thresholds) if arm.balanced else None
    for step in range(iters):
        student.train()
        chosen = torch.multinomial(weights, BATCH, replacement=True, generator=generator)
        views = [augmented_view(labelled.images[chosen], generator, strong=True)]
        if arm.unlabeled:
            others = (
                torch.multinomial(draws, BATCH, replacement=True, generator=generator)
                if draws is not None
                else torch.randint(len(unlabelled.labels), (BATCH,), generator=generator)
            )
            images = unlabelled.images[others]
            scores = _scores(teacher, augmented_view(images, generator, strong=False))
            views.append(augmented_view(images, generator, strong=True))
        logits = student(torch.cat(views))
        loss = F.cross_entropy(logits[:BATCH], labelled.labels[chosen])
        if arm.unlabeled:
            confidences, labels = scores.max(1)
            kept = (confidences >= thresholds[labels]).float()
            if arm.true_labels:
                labels, kept = unlabelled.labels[others], torch.ones(BATCH)
            target = F.one_hot(labels, c).float() if arm.hard else scores
            weight = kept if arm.hard else kept * confidences
            raw = soft_cross_entropy(logits[BATCH:], target)
            ramp = min((step + 1) / RAMP_ITERS, 1.0)
            total = BATCH if arm.mean_over_batch else weight.sum().clamp(min=1.0)
            loss = loss + ramp * (raw * weight).sum() / total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        _average(teacher, student)
        if arm.unlabeled and (step + 1) % REFRESH_ITERS == 0:
            thresholds = _thresholds(teacher, unlabelled.images[sample], counts, groups, arm)
    metrics = _average_precisions(teacher, crops['tune'], groups)
    judged = Crops(unlabelled.images[sample], unlabelled.labels[sample])
    return teacher, metrics | _pseudo_label_quality(teacher, judged, thresholds, groups)


@torch.no_grad()
def _scores(network: nn.Module, views: Tensor) -> Tensor:
    network.eval()
    return network(views).softmax(1)


def _all_scores(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([_scores(network, test_view(part)) for part in images.split(1000)])


def _thresholds(
    teacher: nn.Module, images: Tensor, counts: Tensor, groups: Tensor, arm: Arm
) -> Tensor:
    if arm.score_thr is not None:
        return torch.full((len(groups),), arm.score_thr)
    confidences, labels = _all_scores(teacher, images).max(1)
    # An object is the unit here, not an image.
    return per_class_thresholds(
        'prior',
        score_histogram(confidences, labels, len(groups), SCORE_BINS),
        float(len(images)),
        counts / counts.sum(),
        groups,
        fixed=0.7,
        alpha=0.5,
        quantile=0.5,
        min_count=20,
        lower=0.2,
        upper=0.9,
    )


def _draws(teacher: nn.Module, images: Tensor, thresholds: Tensor) -> Tensor:
    """(N,) weights of the unlabelled crops; those without a pseudo-label have the least."""
    confidences, labels = _all_scores(teacher, images).max(1)
    kept = confidences >= thresholds[labels]
    counts = torch.bincount(labels[kept], minlength=len(thresholds)).clamp(min=1).float()
    return torch.where(kept, (counts.max() / counts).sqrt()[labels], torch.ones(()))


@torch.no_grad()
def _average(teacher: nn.Module, student: nn.Module) -> None:
    for mine, theirs in zip(
        teacher.state_dict().values(), student.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.lerp_(theirs, MOMENTUM)
        else:
            mine.copy_(theirs)


def _average_precisions(network: nn.Module, crops: Crops, groups: Tensor) -> dict[str, float]:
    scores = _all_scores(network, crops.images)
    values = torch.stack(
        [average_precision(scores[:, c], crops.labels == c) for c in range(len(groups))]
    )
    metrics = {'AP': float(values.nanmean())}
    for group, name in enumerate(GROUP_NAMES):
        metrics[f'AP{name[0]}'] = float(values[groups == group].nanmean())
    return metrics


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the interpolated precision over recall; NaN without a positive.

    Args:
        scores: (N,).
        positive: (N,) bool.
    """
    hits = positive[scores.argsort(descending=True, stable=True)].float()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best_beyond = precision.flip(0).cummax(0).values.flip(0)
    return (best_beyond * hits).sum() / hits.sum()


def _pseudo_label_quality(
    teacher: nn.Module, crops: Crops, thresholds: Tensor, groups: Tensor
) -> dict[str, float]:
    confidences, labels = _all_scores(teacher, crops.images).max(1)
    kept = confidences >= thresholds[labels]
    right = kept & (labels == crops.labels)
    metrics = {}
    for group, name in enumerate(GROUP_NAMES):
        named, truly = kept & (groups[labels] == group), groups[crops.labels] == group
        hits = float((right & truly).sum())
        metrics[f'precision_{name}'] = hits / float(named.sum()) if named.any() else float('nan')
        metrics[f'recall_{name}'] = hits / float(truly.sum())
    return metrics
