"""One number for a way of labelling, from labelled images alone: how right what is learned is.

Shape legend: I images, C foreground classes, B confidence bins, G = 3 frequency groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmdet_softpl.evaluation.label_replay import Replay
from mmdet_softpl.evaluation.soft_label_replay import soft_sums
from mmdet_softpl.functional import GROUP_NAMES, expected_calibration_error, reliability_counts
from mmdet_softpl.models.class_state import CONFIDENCE_BINS

MEANS = ('learned_precision', 'learned_recall', 'f_beta', 'precision', 'recall')
# A group without anything right would hide whatever the others do.
SMALLEST = 1e-3


@dataclass(frozen=True)
class GroupStatistics:
    """What the proxy is made of, of each image, so that images can be drawn again.

    Attributes:
        counts: (I, 4, G) kept, judged, right pseudo-labels, and objects.
        learned: (I, 4, G) mass of the labels that the student learns from, and what of it is on
            the true class: of the soft labels of all objects, or of kept ones where labels are
            hard. Of soft labels also the objects that it learns from, and the sum of the logarithms
            of what their classes get (:func:`.soft_sums`); else 0.
        reliability: (I, 3, G, B) count, correct and confidence sums of the surest detections.
    """

    counts: Tensor
    learned: Tensor
    reliability: Tensor


def group_statistics(found: Replay, confidences: Tensor, target_scores: Tensor) -> GroupStatistics:
    """Sums per image and frequency group.

    Args:
        found: The replay.
        confidences: (D,) how likely the labels are right.
        target_scores: (D,) what soft labels give them.
    """
    groups, num_images = found.state.groups, len(found.objects)
    rows = found.image * len(GROUP_NAMES) + groups[found.labels]
    size = num_images * len(GROUP_NAMES)
    kept = found.weights * found.kept
    values = torch.stack([kept, kept * found.judged, kept * found.correct])
    counts = torch.zeros(3, size).index_add(1, rows, values).view(3, num_images, -1)
    counts = counts.transpose(0, 1)
    learned = torch.cat([counts[:, 1:], torch.zeros_like(counts[:, 1:])], 1)
    if found.soft is not None:
        sums = soft_sums(found.soft, found.labels, found.scores, target_scores, groups)
        weighted = sums * found.weights[:, None, None]
        learned = torch.zeros(num_images, *sums.shape[1:]).index_add(0, found.image, weighted)
    objects = torch.zeros(num_images, len(GROUP_NAMES)).index_add(1, groups, found.objects)
    reliability = reliability_counts(
        confidences, rows, found.correct, size, CONFIDENCE_BINS, found.weights * found.judged
    )
    return GroupStatistics(
        torch.cat([counts, objects[:, None]], 1),
        learned,
        reliability.view(3, num_images, len(GROUP_NAMES), -1).transpose(0, 1),
    )


def f_beta(precision: float, recall: float, beta: float) -> float:
    """(1 + beta^2) P R / (beta^2 P + R), 0 where both are 0; beta < 1 asks for precision."""
    denominator = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / denominator if denominator else 0.0


def labelling_proxy(
    counts: Tensor, learned: Tensor, reliability: Tensor, beta: float = 0.5
) -> dict[str, float]:
    """Geometric mean over groups of how right the labels are that the student learns from.

    Of hard labels it is F1, of soft labels the geometric mean of F1 and likelihood. F1: precision
    is the share of the mass that is on the true class, recall that mass per object; labels that are
    surer than right win by it. Likelihood: what labels give the true class, geometric mean over the
    objects of a group, that is the exponential of minus the cross entropy that the truth has under
    them (a proper scoring rule); a boost that spreads mass over rare classes wins by it. Either
    alone can be raised by what trainings do not profit from, so a setting has to gain more by the
    one than it loses by the other. The geometric mean over groups counts a doubling for rare
    classes as much as one for frequent ones, however few of the former are right. Groups without an
    object count for nothing. docs/tune.md has how it ranks settings.

    Args:
        counts: (4, G) kept, judged, right, objects.
        learned: (4, G) mass, right mass, objects, logarithms.
        reliability: (3, G, B).
        beta: Of the F-beta of kept labels, > 0.

    Returns:
        ``proxy``; ``learned_f1`` and, of soft labels, ``likelihood``, which it is made of;
        ``learned_precision``, ``learned_recall``; of kept labels ``f_beta``,
        ``precision``, ``recall``; of all surest ones ``ece`` (means over groups, a precision of
        nothing is 0); and for each group with objects, of soft labels, ``likelihood_rare``, what
        they give the true class; ``learned_precision_rare``,
        ``precision_rare`` (nan where there is nothing to be right), ``learned_recall_rare``,
        ``recall_rare``, ``kept_rare``, ``f_beta_rare``, ``ece_rare`` and so on. All 0 without any
        object.
    """
    soft = bool(learned[2].any())
    values: dict[str, float] = {}
    scores: list[tuple[float, ...]] = []
    logarithms: list[list[float]] = []
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
        mass, right_mass, on_objects, logs = learned[:, index].tolist()
        learned_precision = right_mass / mass if mass > 0 else math.nan
        learned_recall = right_mass / objects
        values[f'learned_precision_{name}'] = learned_precision
        values[f'learned_recall_{name}'] = learned_recall
        known_learned = 0.0 if math.isnan(learned_precision) else learned_precision
        parts = [f_beta(known_learned, learned_recall, 1.0)]
        if soft:
            parts.append(math.exp(logs / on_objects) if on_objects else 0.0)
            values[f'likelihood_{name}'] = parts[1]
        values[f'precision_{name}'] = precision
        values[f'recall_{name}'] = recall
        values[f'kept_{name}'] = kept
        values[f'f_beta_{name}'] = score
        values[f'ece_{name}'] = error
        # Of each group, for geometric means.
        logarithms.append([math.log(max(part, SMALLEST)) for part in parts])
        scores.append((known_learned, learned_recall, score, known, recall))
        if not math.isnan(error):
            errors.append(error)
    if soft:
        values['likelihood'] = _geometric([row[1] for row in logarithms])
    return dict(
        proxy=_geometric([value for row in logarithms for value in row]),
        learned_f1=_geometric([row[0] for row in logarithms]),
        **{name: _mean([row[i] for row in scores]) for i, name in enumerate(MEANS)},
        ece=_mean(errors),
        **values,
    )


def total(
    statistics: GroupStatistics, draws: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """``counts`` (4, G), ``learned`` (4, G) and ``reliability`` (3, G, B) of all images.

    Each image is taken ``draws`` (I,) times; None: once.
    """
    if draws is None:
        draws = torch.ones(len(statistics.counts))
    draws = draws.to(statistics.counts)
    counts, learned, reliability = (
        torch.tensordot(draws, part, dims=1)
        for part in (statistics.counts, statistics.learned, statistics.reliability)
    )
    return counts, learned, reliability


def bootstrap_difference(
    a: GroupStatistics,
    b: GroupStatistics,
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of proxy(b) - proxy(a) over images drawn with replacement, in pairs.

    Args:
        a, b: Of the same images.
        repeats: Draws, >= 1.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    num_images = len(a.counts)
    differences = []
    for _ in range(repeats):
        drawn = torch.randint(num_images, (num_images,), generator=generator)
        draws = torch.bincount(drawn, minlength=num_images)
        values = []
        for side in (a, b):
            values.append(labelling_proxy(*total(side, draws))['proxy'])
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


def _geometric(logarithms: list[float]) -> float:
    return math.exp(_mean(logarithms)) if logarithms else 0.0


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
