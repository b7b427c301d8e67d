"""What each component claims, measured in a feature-space world with known answers.

Shape letters as in ``world``: **N** samples, **C** foreground classes (background has index C).
Every function takes a world config and a seed, and returns measures by arm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.decision.world import (
    Linear,
    Samples,
    World,
    WorldConfig,
    prototypes_of,
    similarity_of,
)
from mmdet_softpl.frequency_bounds import RARE_MAX_IMAGES
from mmdet_softpl.functional import (
    COMMON,
    FREQUENT,
    MAX_OFFSET,
    RARE,
    apply_calibrator,
    boost_scores,
    class_conditional_ece,
    expected_calibration_error,
    expected_counts,
    frequency_boost,
    histogram_calibrator,
    per_class_thresholds,
    prototype_log_evidence,
    reliability_counts,
    score_histogram,
    soft_targets,
    student_offsets,
)

Measures = dict[str, dict[str, float]]
SMOOTHING = 0.1
GROUPS = {'rare': RARE, 'common': COMMON, 'frequent': FREQUENT}
SCORE_BINS = 100
CONFIDENCE_BINS = 15


def top_labels(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Best foreground class of every sample: scores (N,) and labels (N,)."""
    return scores[:, :-1].max(1)


def overconfidence(config: WorldConfig, seed: int) -> Measures:
    """Mean confidence minus accuracy of what is predicted as a class of each group."""
    world = World(config, seed)
    labelled, unlabelled = world.labelled(), world.unlabelled()
    result: Measures = {}
    for mode in ('none', 'uniform', 'similarity'):
        similarity = similarity_of(
            labelled, config.num_classes, mode if mode != 'none' else 'uniform'
        )
        strength = 0.0 if mode == 'none' else SMOOTHING
        teacher = Linear(config).fit(labelled, strength, similarity)
        confidence, labels = teacher.scores(unlabelled.features).max(1)
        foreground = labels < config.num_classes
        correct = (labels == unlabelled.labels).float()
        result[mode] = {}
        for name, group in GROUPS.items():
            chosen = foreground & (world.groups[labels.clamp(max=config.num_classes - 1)] == group)
            gap = (confidence - correct)[chosen]
            result[mode][f'gap_{name}'] = float(gap.mean()) if len(gap) else float('nan')
    return result


def sibling_mass(config: WorldConfig, seed: int) -> Measures:
    """Share of the smoothing mass that lands on true siblings, for classes of each group."""
    world = World(config, seed)
    labelled = world.labelled()
    c = config.num_classes
    same = world.family[:, None] == world.family[None]
    similarity = similarity_of(labelled, c, 'similarity')
    dense = torch.zeros(c, c).scatter_add(1, similarity.indices, similarity.weights)
    uniform = (1 - torch.eye(c)) / (c - 1)
    result: Measures = {}
    for mode, matrix in (('uniform', uniform), ('similarity', dense)):
        share = (matrix * same).sum(1)
        result[mode] = {
            f'siblings_{name}': float(share[world.groups == group].mean())
            for name, group in GROUPS.items()
        }
    return result


def rare_pseudo_labels(config: WorldConfig, seed: int) -> Measures:
    """Recall and precision of kept pseudo-labels per group, rule by rule."""
    world = World(config, seed)
    labelled, unlabelled = world.labelled(), world.unlabelled()
    c = config.num_classes
    teacher = Linear(config).fit(labelled, SMOOTHING, similarity_of(labelled, c, 'similarity'))
    scores = teacher.scores(unlabelled.features)
    boost = frequency_boost(world.counts)
    below = frequency_boost(world.counts, RARE_MAX_IMAGES)
    weights = torch.tensor([1.0, 0.5, 0.0])[world.groups]
    evidence = weights * (
        prototype_log_evidence(unlabelled.features, *prototypes_of(labelled, c))
        + torch.tensor(float(c)).log()
    )
    one = torch.ones(c)
    arms = {
        'one threshold': (scores, None),
        'thresholds': (scores, 'prior'),
        'boost': (boost_scores(scores, boost), None),
        'boost, thresholds': (boost_scores(scores, boost), 'prior'),
        'prototypes, thresholds': (boost_scores(scores, one, evidence), 'prior'),
        'boost, prototypes, thresholds': (boost_scores(scores, boost, evidence), 'prior'),
        # In a long tail the median class is as rare as any, and `boost` boosts nothing.
        f'boost below {RARE_MAX_IMAGES}, thresholds': (boost_scores(scores, below), 'prior'),
        f'boost below {RARE_MAX_IMAGES}, prototypes, thresholds': (
            boost_scores(scores, below, evidence),
            'prior',
        ),
    }
    rate = world.counts / len(labelled.labels)
    result: Measures = {}
    for name, (values, mode) in arms.items():
        confidence, labels = top_labels(values)
        thresholds = torch.full((c,), 0.7)
        if mode is not None:
            thresholds = per_class_thresholds(
                mode,
                score_histogram(confidence, labels, c, SCORE_BINS),
                len(labels),
                rate,
                world.groups,
                alpha=0.5,
            )
        kept = confidence > thresholds[labels]
        result[name] = quality(
            labels[kept], unlabelled.labels[kept], unlabelled.labels, world.groups
        )
    return result


def quality(labels: Tensor, truth: Tensor, all_truth: Tensor, groups: Tensor) -> dict[str, float]:
    """Precision and recall of kept labels (K,) per group; ``all_truth`` (N,) has every sample."""
    c = len(groups)
    padded = torch.cat([groups, groups.new_full((1,), -1)])
    result = {}
    for name, group in GROUPS.items():
        mine = groups[labels] == group
        right = (labels == truth)[mine].sum()
        objects = (padded[all_truth.clamp(max=c)] == group).sum()
        result[f'precision_{name}'] = float(right / mine.sum()) if mine.any() else float('nan')
        result[f'recall_{name}'] = float(right / objects) if objects else float('nan')
    return result


def calibration(config: WorldConfig, seed: int) -> Measures:
    """ECE and class-conditional ECE on unlabelled samples, calibrated on three sources."""
    world = World(config, seed)
    labelled, holdout, unlabelled = world.labelled(), world.labelled(), world.unlabelled()
    c = config.num_classes
    teacher = Linear(config).fit(labelled, SMOOTHING, similarity_of(labelled, c, 'similarity'))

    def reliability(samples: Samples, table: Tensor | None) -> Tensor:
        confidence, labels = top_labels(teacher.scores(samples.features))
        correct = labels == samples.labels
        if table is not None:
            confidence = apply_calibrator(confidence, labels, table)
        return reliability_counts(confidence, labels, correct, c, CONFIDENCE_BINS)

    tables = {
        'none': None,
        'on the training samples': histogram_calibrator(reliability(labelled, None), world.groups),
        'on held-out samples': histogram_calibrator(reliability(holdout, None), world.groups),
    }
    result: Measures = {}
    for name, table in tables.items():
        state = reliability(unlabelled, table)
        per_class = class_conditional_ece(state, min_count=10)
        result[name] = {
            'ece': float(expected_calibration_error(state)),
            'cc_ece': float(per_class.nanmean()),
        }
    return result


def correction(config: WorldConfig, seed: int) -> Measures:
    """A teacher with a planted shift d per class; how much of it does the student inherit?

    ``shift`` is the mean over classes of |log(mean student score / mean true score)| on
    unlabelled samples; ``accuracy`` is on a balanced foreground set.
    """
    world = World(config, seed)
    holdout, unlabelled, test = world.labelled(), world.unlabelled(), world.balanced()
    c = config.num_classes
    true = Linear(config).fit(unlabelled)
    planted = torch.sign(torch.randn(c, generator=world.generator))

    def teacher(features: Tensor) -> Tensor:
        return (true.logits(features).detach() + F.pad(planted, (0, 1))).softmax(1)

    arms = {
        'none': None,
        'confidence over hits': ratio_offsets(teacher, holdout, world.groups),
        'repeated steps': stepped_offsets(teacher, holdout, world.groups),
        'planted': planted,
    }
    scores = teacher(unlabelled.features)
    top, top_label = scores[:, :-1].max(1)
    targets = soft_targets(scores, top_label, top)
    ones = torch.ones(len(top))
    expected = true.scores(unlabelled.features)[:, :-1].mean(0)
    foreground = test.labels < c
    result: Measures = {}
    for name, offsets in arms.items():
        student = Linear(config).fit_soft(unlabelled.features, targets, ones, offsets)
        mean = student.scores(unlabelled.features)[:, :-1].mean(0)
        predicted = top_labels(student.scores(test.features[foreground]))[1]
        result[name] = {
            'shift': float((mean / expected).log().abs().mean()),
            'accuracy': float((predicted == test.labels[foreground]).float().mean()),
        }
    return result


def ratio_offsets(teacher: Callable[[Tensor], Tensor], samples: Samples, groups: Tensor) -> Tensor:
    """(C,) from the summed confidence and hits of what is predicted as each class."""
    confidence, labels = top_labels(teacher(samples.features))
    hits = (labels == samples.labels).float()
    sums = torch.zeros(2, len(groups)).index_add(1, labels, torch.stack([confidence, hits]))
    return student_offsets(sums[0], sums[1], groups)


def stepped_offsets(
    teacher: Callable[[Tensor], Tensor], samples: Samples, groups: Tensor, steps: int = 10
) -> Tensor:
    """(C,) as ``CalibratedSoftTeacher`` does it, a step a refresh."""
    targets = teacher(samples.features)
    observed = torch.bincount(samples.labels, minlength=len(groups) + 1)[:-1].float()
    offsets = torch.zeros(len(groups))
    for _ in range(steps):
        expected = expected_counts(targets, offsets)
        offsets = (offsets + student_offsets(expected, observed, groups)).clamp(
            -MAX_OFFSET, MAX_OFFSET
        )
    return offsets


CLAIMS = {
    'smoothing lowers over-confidence on frequent classes': overconfidence,
    'similarity puts the smoothing mass on true siblings': sibling_mass,
    'boost and per-class thresholds find rare objects': rare_pseudo_labels,
    'calibration lowers ECE and class-conditional ECE': calibration,
    'student correction removes a planted prior shift': correction,
}
