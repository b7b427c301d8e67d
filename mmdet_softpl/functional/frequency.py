"""Class frequencies: groups, the rare boost, scores re-weighted by it, logits without the prior.

Shape letters: **N** RoIs, **C** foreground classes (background has index C).
Source: "Frequency" and "Rare boost" of docs/DESIGN.md, section 4; the groups are those of LVIS
(arXiv 1908.03195).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_softpl.frequency_bounds import COMMON_MAX_IMAGES, RARE_MAX_IMAGES

from ._tensor import at_least_float32, log_foreground, shared_out

RARE, COMMON, FREQUENT = 0, 1, 2
GROUP_NAMES = ('rare', 'common', 'frequent')
# Of LVIS's ``frequency`` field, by group.
FREQUENCY_LETTERS = ('r', 'c', 'f')


def frequency_groups(image_counts: Tensor) -> Tensor:
    """Frequency group of every class (LVIS: rare <= 10 images, common <= 100, else frequent).

    Args:
        image_counts: (C,) labelled images that show the class, >= 0.

    Returns:
        (C,) int64 of ``RARE``, ``COMMON``, ``FREQUENT``.
    """
    return (image_counts > RARE_MAX_IMAGES).long() + (image_counts > COMMON_MAX_IMAGES).long()


def frequency_boost(
    image_counts: Tensor,
    target: float | None = None,
    gamma: float = 0.5,
    max_boost: float = 4.0,
) -> Tensor:
    """Boost a_c = clip((t / m_c)^gamma, 1, max_boost) of every class.

    The ratio of two frequencies is the ratio of two counts, so the size of the data set cancels.

    Args:
        image_counts: (C,) labelled images m_c that show the class, >= 0.
        target: t, the image count from which on a class is not boosted, > 0; None: the median
            count of the classes that have a labelled image.
        gamma: strength, >= 0; 0 boosts nothing.
        max_boost: upper limit, >= 1.

    Returns:
        (C,) float32 in [1, max_boost]. A class without a labelled image gets 1: nothing says
        that it is there to be found.

    Raises:
        ValueError: a parameter is outside its range.
    """
    if gamma < 0:
        raise ValueError(f'gamma of the frequency boost must be >= 0, got {gamma}')
    if max_boost < 1:
        raise ValueError(f'max_boost of the frequency boost must be >= 1, got {max_boost}')
    if target is not None and target <= 0:
        raise ValueError(f'target of the frequency boost must be > 0 images, got {target}')
    counts = at_least_float32(image_counts)
    seen = counts > 0
    if target is None:
        target = counts[seen].quantile(0.5).item() if bool(seen.any()) else 1.0
    boost = (target / counts.clamp_min(1)).pow(gamma).clamp(1, max_boost)
    return torch.where(seen, boost, torch.ones_like(boost))


def boost_scores(scores: Tensor, boost: Tensor, log_evidence: Tensor | None = None) -> Tensor:
    """Shift foreground probability toward boosted classes and leave objectness as it is.

    s_c = (1 - p_bg) p_c a_c e_c / sum_j p_j a_j e_j and s_bg = p_bg.

    Args:
        scores: (N, C+1) probabilities p, rows sum to 1.
        boost: (C,) factors a > 0.
        log_evidence: (N, C) log e of a second source (prototypes), up to a constant per row;
            None: no second source.

    Returns:
        (N, C+1) float32. A class of probability 0 stays at 0, so a row without any foreground
        probability keeps none.
    """
    scores = at_least_float32(scores)
    log_mass = log_foreground(scores) + at_least_float32(boost).log()
    if log_evidence is not None:
        log_mass = log_mass + at_least_float32(log_evidence)
    return shared_out(scores, log_mass)


def rebalancing_shifts(image_counts: Tensor, gamma: float) -> Tensor:
    """Shift -gamma log(m_c / t) of each class logit, by which labelled frequencies count less.

    NorCal (Pan et al., arXiv 2107.02170) without its other effect: there every class is lowered
    (t = 1), which raises background. Here t is the median count, whose class stays where it is.

    Args:
        image_counts: (C,) labelled images m_c that show the class, >= 0.
        gamma: in [0, 2]; 0 changes nothing, 1 takes the frequencies out, and more takes out what
            a detector adds to them that has learnt from its own labels.

    Returns:
        (C,) float32. The median of the classes that have a labelled image gets 0, and so does a
        class without one: nothing says that it is there to be found.

    Raises:
        ValueError: gamma is outside its range.
    """
    if not 0 <= gamma <= 2:
        raise ValueError(f'gamma of the rebalancing must lie in [0, 2], got {gamma}')
    counts = at_least_float32(image_counts)
    seen = counts > 0
    target = counts[seen].quantile(0.5) if bool(seen.any()) else counts.new_ones(())
    shifts = -gamma * (counts.clamp_min(1) / target).log()
    return torch.where(seen, shifts, torch.zeros_like(shifts))
