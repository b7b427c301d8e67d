"""One number for a way of labelling, from labelled images alone: balanced F-beta minus ECE.

Shape legend: I images, C foreground classes, B confidence bins, G = 3 frequency groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdet_softpl.evaluation.label_replay import Replay
from mmdet_softpl.functional import GROUP_NAMES, expected_calibration_error, reliability_counts
from mmdet_softpl.models.class_state import CONFIDENCE_BINS

KEPT, JUDGED, RIGHT, OBJECTS = range(4)


@dataclass(frozen=True)
class GroupStatistics:
    """What the proxy is made of, of each image, so that images can be drawn again.

    Attributes:
        counts: (I, 4, G) kept, judged, right pseudo-labels, and objects.
        reliability: (I, 3, G, B) count, correct and confidence sums of the surest detections.
    """

    counts: Tensor
    reliability: Tensor


def group_statistics(found: Replay, confidences: Tensor) -> GroupStatistics:
    """Sums per image and frequency group.

    Args:
        found: The replay.
        confidences: (D,) calibrated.
    """
    groups, num_images = found.state.groups, len(found.objects)
    rows = found.image * len(GROUP_NAMES) + groups[found.labels]
    size = num_images * len(GROUP_NAMES)
    kept = found.weights * found.kept
    values = torch.stack([kept, kept * found.judged, kept * found.correct])
    counts = torch.zeros(3, size).index_add(1, rows, values).view(3, num_images, -1)
    objects = torch.zeros(num_images, len(GROUP_NAMES)).index_add(1, groups, found.objects)
    reliability = reliability_counts(
        confidences, rows, found.correct, size, CONFIDENCE_BINS, found.weights * found.judged
    )
    return GroupStatistics(
        torch.cat([counts, objects[None]]).transpose(0, 1),
        reliability.view(3, num_images, len(GROUP_NAMES), -1).transpose(0, 1),
    )


def f_beta(precision: float, recall: float, beta: float) -> float:
    """(1 + beta^2) P R / (beta^2 P + R), 0 where both are 0; beta < 1 asks for precision."""
    denominator = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / denominator if denominator else 0.0


def labelling_proxy(
    counts: Tensor, reliability: Tensor, beta: float = 0.5, calibration_weight: float = 1.0
) -> dict[str, float]:
    """mean over groups of F-beta minus ``calibration_weight`` times the mean of the groups' ECE.

    Groups without an object count for nothing; so does the ECE of a group without a detection. A
    mean of groups, so that the rare classes weigh as much as the frequent ones. That it ranks
    settings as whole trainings do is not shown: see docs/tune.md for what measures it.

    Args:
        counts: (4, G) kept, judged, right, objects.
        reliability: (3, G, B).
        beta: Of F-beta, > 0.
        calibration_weight: >= 0.

    Returns:
        ``proxy``, ``f_beta``, ``ece``, ``precision``, ``recall`` (means over groups, a group that
        keeps nothing has precision 0) and for each group with objects ``precision_rare`` (nan
        where nothing was judged), ``recall_rare``, ``kept_rare``, ``f_beta_rare``, ``ece_rare``
        and so on. All 0 without any object.
    """
    values: dict[str, float] = {}
    scores: list[tuple[float, float, float]] = []
    errors: list[float] = []
    for index, name in enumerate(GROUP_NAMES):
        kept, judged, right, objects = counts[:, index].tolist()
        if not objects:
            continue
        precision = right / judged if judged else math.nan
        recall = right / objects
        known = 0.0 if math.isnan(precision) else precision
        score = f_beta(known, recall, beta)
        error = float(expected_calibration_error(reliability[:, index : index + 1]))
        values[f'precision_{name}'] = precision
        values[f'recall_{name}'] = recall
        values[f'kept_{name}'] = kept
        values[f'f_beta_{name}'] = score
        values[f'ece_{name}'] = error
        scores.append((score, known, recall))
        if not math.isnan(error):
            errors.append(error)
    means = [_mean([row[i] for row in scores]) for i in range(3)]
    ece = _mean(errors)
    summary = dict(f_beta=means[0], precision=means[1], recall=means[2], ece=ece)
    return dict(proxy=means[0] - calibration_weight * ece, **summary, **values)


def total(statistics: GroupStatistics, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``counts`` (4, G) and ``reliability`` (3, G, B) of all images, each taken ``draws`` (I,)
    times."""
    if draws is None:
        return statistics.counts.sum(0), statistics.reliability.sum(0)
    draws = draws.to(statistics.counts)
    return (
        torch.tensordot(draws, statistics.counts, dims=1),
        torch.tensordot(draws, statistics.reliability, dims=1),
    )


def bootstrap_difference(
    a: GroupStatistics,
    b: GroupStatistics,
    repeats: int = 1000,
    seed: int = 0,
    *,
    beta: float = 0.5,
    calibration_weight: float = 1.0,
) -> tuple[float, float]:
    """95 % interval of proxy(b) - proxy(a) over images drawn with replacement, in pairs.

    Args:
        a, b: Of the same images.
        repeats: Draws, >= 1.
        seed: Of the draws.
        beta, calibration_weight: Of :func:`labelling_proxy`.
    """
    generator = torch.Generator().manual_seed(seed)
    num_images = len(a.counts)
    differences = []
    for _ in range(repeats):
        drawn = torch.randint(num_images, (num_images,), generator=generator)
        draws = torch.bincount(drawn, minlength=num_images)
        values = []
        for side in (a, b):
            counts, reliability = total(side, draws)
            values.append(labelling_proxy(counts, reliability, beta, calibration_weight)['proxy'])
        differences.append(values[1] - values[0])
    low, high = torch.tensor(differences).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def threshold_curves(found: Replay, thresholds: Tensor) -> dict[str, dict[str, Any]]:
    """Precision, recall and number of labels of each group if one threshold held for all classes.

    The greedy matching goes by descending score within a class, so what is right above one
    threshold is right above a lower one too, and one replay does for all.

    Args:
        found: The replay, whatever its thresholds.
        thresholds: (P,) ascending, in [0, 1].

    Returns:
        Group name to ``threshold``, ``precision`` (nan where nothing is judged), ``recall`` and
        ``kept_per_image``, each a list of P; groups without an object are left out.
    """
    groups = found.state.groups
    curves: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(GROUP_NAMES):
        objects = float(found.objects[:, groups == index].sum())
        if not objects:
            continue
        rows = groups[found.labels] == index
        above = found.scores[rows, None] > thresholds
        weights = found.weights[rows, None] * above
        judged = (weights * found.judged[rows, None]).sum(0)
        right = (weights * found.correct[rows, None]).sum(0)
        curves[name] = dict(
            threshold=thresholds.tolist(),
            precision=(right / judged).tolist(),
            recall=(right / objects).tolist(),
            kept_per_image=(weights.sum(0) / max(len(found.objects), 1)).tolist(),
        )
    return curves


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
