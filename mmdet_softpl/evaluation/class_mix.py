"""How the mix of classes in held-out images differs from that of the labelled ones.

Shape legend: C foreground classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmdet_softpl.datasets.class_statistics import ClassStatistics


def mix_weights(
    labelled: ClassStatistics, held_out_objects: Tensor, num_images: int, prior: float = 5.0
) -> Tensor:
    """How much objects of each class count so that held-out images stand for labelled ones.

    The ratio of the two rates of objects per image, with ``prior`` pseudo-objects on both sides
    (label shift: a class looks the same in both, it is only more or less common).

    Args:
        labelled: The labelled set.
        held_out_objects: (C,) objects of the held-out images.
        num_images: Held-out images.
        prior: > 0.

    Returns:
        (C,) > 0.
    """
    expected = torch.as_tensor(labelled.labelled_rate()) * num_images
    return ((expected + prior) / (held_out_objects.double() + prior)).float()


def mix_difference(labelled: ClassStatistics, held_out_objects: Tensor) -> float:
    """Total variation distance in [0, 1] of the class shares of both sets."""
    own = torch.as_tensor(labelled.instance_counts).double()
    other = held_out_objects.double()
    shares = [counts / counts.sum().clamp_min(1) for counts in (own, other)]
    return float((shares[0] - shares[1]).abs().sum() / 2)
