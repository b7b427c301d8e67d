"""How likely a given label is right, from what a teacher says about it.

Shape letters: **N** labels, **M** labels elsewhere, **E** kinds of evidence, **C** classes.
Evidence lies in [0, 1], 1 where the teacher agrees: for the given box its class among the
foreground classes, the same against the strongest other class alone, that it is an object at all,
the IoU with the box that the teacher would draw, the IoU of the masks. A *gate* is a vector (E+1,):
the bias and a coefficient for the logit of each evidence.
The gate is a logistic regression on log-odds, as in Platt scaling (Platt, "Probabilistic outputs
for support vector machines", 1999), fitted on labels of which it is known which are wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps log-odds finite. Not wider: an objectness of 0.99 and one of 0.999 differ in what they
# say; cut at 0.01, the gate dropped 75 % of wrong labels instead of 81 %.
_EDGE = 1e-4
_NEWTON_STEPS = 50
# A class with one held-out label says little about how well its labels can be told apart.
_PRIOR_LABELS = 5.0


def fit_label_gate(
    evidence: Tensor, right: Tensor, wrong_share: float = 0.25, ridge: float = 0.01
) -> Tensor:
    """The gate that tells right from wrong labels, by penalised maximum likelihood.

    Args:
        evidence: (N, E) in [0, 1].
        right: (N,) bool.
        wrong_share: Share of wrong labels where the gate will be used, in (0, 1); the sample
            may hold another share.
        ridge: Penalty > 0 on the squared coefficients of the standardised log-odds.

    Returns:
        (E+1,) float64: bias, coefficients.

    Raises:
        ValueError: Without a right or without a wrong label; ``wrong_share`` or ``ridge``
            outside its range.
    """
    if not 0 < wrong_share < 1 or not ridge > 0:
        raise ValueError(
            f'the gate needs wrong_share in (0, 1) and ridge > 0, got {wrong_share} and {ridge}'
        )
    count, num_right = len(right), int(right.sum())
    if num_right in (0, count):
        raise ValueError(
            f'the gate needs right and wrong labels to be fitted, got {num_right} right ones of '
            f'{count}'
        )
    target = right.double()
    weights = torch.where(right, (1 - wrong_share) / num_right, wrong_share / (count - num_right))
    weights = weights.double()[:, None]
    log_odds = _log_odds(evidence)
    mean = (weights * log_odds).sum(0)
    spread = (weights * (log_odds - mean) ** 2).sum(0).sqrt().clamp_min(1e-6)
    design = torch.cat([torch.ones_like(log_odds[:, :1]), (log_odds - mean) / spread], 1)
    penalty = torch.full((design.shape[1],), ridge, dtype=torch.double, device=design.device)
    penalty[0] = 0
    gate = torch.zeros_like(penalty)
    for _ in range(_NEWTON_STEPS):
        probability = (design @ gate).sigmoid()
        gradient = design.T @ (weights[:, 0] * (probability - target)) + penalty * gate
        curvature = design.T @ (weights * (probability * (1 - probability))[:, None] * design)
        gate = gate - torch.linalg.solve(curvature + penalty.diag(), gradient)
    coefficients = gate[1:] / spread
    return torch.cat([gate[:1] - (coefficients * mean).sum(), coefficients])


def label_weights(evidence: Tensor, gate: Tensor) -> Tensor:
    """Probability that each label is right.

    Args:
        evidence: (N, E) in [0, 1].
        gate: (E+1,) of :func:`fit_label_gate`.

    Returns:
        (N,) float64 in [0, 1].
    """
    return (gate[0] + _log_odds(evidence) @ gate[1:]).sigmoid()


def class_importance(labels: Tensor, elsewhere: Tensor, num_classes: int) -> Tensor:
    """What each label of a sample counts, so that the sample stands for another mix of classes.

    The ratio of the shares of its class (importance weighting, Shimodaira, "Improving predictive
    inference under covariate shift", 2000), pulled toward 1 as if five labels more of each class
    had been seen on both sides.

    Args:
        labels: (N,) int64 in [0, C), of the sample.
        elsewhere: (M,) int64 in [0, C), where the sample's result is used; M may be 0.
        num_classes: C.

    Returns:
        (N,) float64, > 0; ones where M is 0.
    """
    own, other = (
        torch.bincount(part, minlength=num_classes).double() for part in (labels, elsewhere)
    )
    wanted = other * (len(labels) / len(elsewhere)) if len(elsewhere) else own
    return ((wanted + _PRIOR_LABELS) / (own + _PRIOR_LABELS))[labels]


def balanced_threshold(weights: Tensor, right: Tensor, importance: Tensor) -> float:
    """The threshold that keeps as large a share of the right labels as it drops of the wrong ones.

    Args:
        weights: (N,) of labels.
        right: (N,) bool, with both kinds.
        importance: (N,) > 0, what each label counts.

    Returns:
        Half-way between two of the weights, or the lowest; labels with at least this weight are
        kept.
    """
    thresholds, kept_right, kept_wrong = _shares(weights, right, importance)
    best = int(torch.minimum(kept_right, 1 - kept_wrong).argmax())
    # Anything between the last dropped and the first kept weight is as good here, and elsewhere
    # the ends are not.
    return float(thresholds[max(best - 1, 0) : best + 1].mean())


def precision_threshold(
    weights: Tensor,
    right: Tensor,
    importance: Tensor,
    precision: float,
    wrong_share: float = 0.25,
) -> float | None:
    """The lowest threshold at which the kept labels have the given precision.

    Args:
        weights, right, importance: As in :func:`balanced_threshold`.
        precision: Share of right ones among the kept labels, in (0, 1].
        wrong_share: Share of wrong labels where the threshold will be used.

    Returns:
        One of the weights, or None if no threshold reaches the precision.
    """
    thresholds, kept_right, kept_wrong = _shares(weights, right, importance)
    good, bad = (1 - wrong_share) * kept_right, wrong_share * kept_wrong
    enough = (good / (good + bad).clamp_min(1e-12) >= precision).nonzero()
    return float(thresholds[enough[0, 0]]) if len(enough) else None


def _log_odds(evidence: Tensor) -> Tensor:
    return torch.logit(evidence.double().clamp(_EDGE, 1 - _EDGE))


def _shares(weights: Tensor, right: Tensor, importance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending thresholds and the shares of right and of wrong labels that each keeps."""
    thresholds, place = weights.unique(return_inverse=True)
    kept = []
    for part in (right, ~right):
        counts = importance.new_zeros(len(thresholds)).index_add(0, place[part], importance[part])
        kept.append(counts.flip(0).cumsum(0).flip(0) / counts.sum())
    return thresholds, kept[0], kept[1]
