"""Class scores of one object made surer of its likeliest classes.

Shape letters: **N** RoIs, **C** foreground classes (background has index C).
Source: the sharpening of MixMatch (arXiv 1905.02249, equation 7), of foreground classes alone.
"""

from __future__ import annotations

from torch import Tensor

from ._tensor import at_least_float32, log_foreground, shared_out


def sharpen_scores(scores: Tensor, temperature: float) -> Tensor:
    """Raise class shares to 1 / T and leave objectness as it is.

    s_c = (1 - p_bg) p_c^(1/T) / sum_j p_j^(1/T) and s_bg = p_bg.

    Args:
        scores: (N, C+1) probabilities p, rows sum to 1.
        temperature: T > 0; 1 changes nothing, below 1 the likeliest classes gain.

    Returns:
        (N, C+1) float32, or ``scores`` itself for T = 1. A class of probability 0 stays at 0.

    Raises:
        ValueError: T is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f'temperature of the sharpening must be > 0, got {temperature}')
    if temperature == 1:
        return scores
    scores = at_least_float32(scores)
    return shared_out(scores, log_foreground(scores) / temperature)
