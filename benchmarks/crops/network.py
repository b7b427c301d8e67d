"""A small classifier of crops, and its weak and strong views.

Shape letters: N crops, S side of a view in pixels, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VIEW_SIZE = 32
WIDTH = 16


def build_network(num_classes: int) -> nn.Sequential:
    """Five convolutions and two linear layers: (N, 3, S, S) -> (N, C) logits."""

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    w = WIDTH
    return nn.Sequential(
        block(3, w, 2),
        block(w, 2 * w, 1),
        block(2 * w, 2 * w, 2),
        block(2 * w, 4 * w, 1),
        block(4 * w, 4 * w, 2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * w, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, num_classes),
    )


def test_view(images: Tensor) -> Tensor:
    """The middle of the crops, normalised: (N, 3, S, S)."""
    margin = (images.shape[-1] - VIEW_SIZE) // 2
    middle = images[..., margin : margin + VIEW_SIZE, margin : margin + VIEW_SIZE]
    return _normalised(middle.float() / 255)


def augmented_view(images: Tensor, generator: torch.Generator, strong: bool) -> Tensor:
    """Flipped, shifted and scaled; strong: more of it, other colours, a patch erased."""
    x, n = images.float() / 255, len(images)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    scale = draw(0.7, 1.25) if strong else draw(0.8, 1.1)
    angle = draw(-0.3, 0.3) if strong else draw(-0.05, 0.05)
    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    reach = 0.15 if strong else 0.08
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrices = torch.stack(
        [
            torch.stack([cos * flip, -sin, draw(-reach, reach)], 1),
            torch.stack([sin * flip, cos, draw(-reach, reach)], 1),
        ],
        1,
    )
    grid = F.affine_grid(matrices, [n, 3, VIEW_SIZE, VIEW_SIZE], align_corners=False)
    x = F.grid_sample(x, grid, align_corners=False, padding_mode='reflection')
    if strong:
        contrast, brightness = draw(0.6, 1.4), draw(-0.2, 0.2)
        colour = torch.empty(n, 3, 1, 1).uniform_(-0.1, 0.1, generator=generator)
        x = x * contrast[:, None, None, None] + brightness[:, None, None, None] + colour
        centre, radius = torch.stack([draw(0, VIEW_SIZE), draw(0, VIEW_SIZE)], 1), draw(0, 10)
        steps = torch.arange(VIEW_SIZE)
        inside = (steps - centre[..., None]).abs() < radius[:, None, None]
        x = x.masked_fill((inside[:, 0, :, None] & inside[:, 1, None])[:, None], 0.5)
    return _normalised(x)


def _normalised(x: Tensor) -> Tensor:
    return (x - 0.5) * 4
