"""Which knob of the full method is dangerous: one at a time, around its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Knob:
    """A setting that is turned.

    Attributes:
        default: What the full method has.
        values: What is tried beside it.
        of_head: Of the box head, so of the burn-in too; else of the labeller.
    """

    default: float
    values: tuple[float, ...]
    of_head: bool = False


KNOBS = {
    # What threshold mode `prior` aims at.
    'alpha': Knob(0.5, (0.25, 1.0)),
    'boost_gamma': Knob(1.0, (0.5, 2.0)),
    'smoothing': Knob(0.1, (0.05, 0.2), of_head=True),
    'temperature': Knob(0.1, (0.05, 0.3), of_head=True),
}


def turn(cfg: dict[str, Any], knob: str, value: float) -> None:
    """Set a knob in an arm's config, in place."""
    if KNOBS[knob].of_head:
        owner = cfg['model']['detector']['roi_head']['bbox_head']
    else:
        (owner,) = (
            hook for hook in cfg['custom_hooks'] if hook['type'].endswith('RareBoostPseudoLabeler')
        )
    owner[knob] = value
