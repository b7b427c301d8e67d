"""Which knob of a method is dangerous: one at a time, around its default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Knob:
    """A setting that is turned.

    Attributes:
        default: What the full method has.
        values: What is tried beside it.
        owner: What it is a setting of. One of the box head or the data set is one of the burn-in
            too.
    """

    default: float
    values: tuple[float, ...]
    owner: Literal['box head', 'labeler', 'detector', 'data set'] = 'labeler'


# By the arm whose knobs they are.
KNOBS = {
    '0-pasted': {
        'max_num_pasted': Knob(3, (6,), 'data set'),
    },
    '7': {
        'boost_gamma': Knob(1.0, (2.0,)),
        'unsup_weight': Knob(2.0, (0.5, 1.0), 'detector'),
    },
    '7-shipped': {
        # What threshold mode `prior` aims at.
        'alpha': Knob(0.5, (0.25, 1.0)),
        'boost_gamma': Knob(1.0, (0.5, 2.0)),
        # Of soft labels: below 1 they are surer than the network, above 1 less sure.
        'label_temperature': Knob(1.0, (0.25, 0.5, 2.0), 'detector'),
        # Whether labels are means over a view and its mirror image.
        'mirror': Knob(True, (False,), 'detector'),
        # Of rare classes; 0 of all.
        'prototype_weight': Knob(1.0, (0.0,)),
        'smoothing': Knob(0.1, (0.05, 0.2), 'box head'),
        'temperature': Knob(0.1, (0.05, 0.3), 'box head'),
        'unsup_weight': Knob(1.0, (0.5,), 'detector'),
    },
}


def turn(cfg: dict[str, Any], arm: str, knob: str, value: float) -> None:
    """Set a knob of ``arm`` in that arm's config, in place."""
    model = cfg['model']
    owners = {
        'box head': [model['detector']['roi_head']['bbox_head']],
        'labeler': [h for h in cfg['custom_hooks'] if h['type'].endswith('RareBoostPseudoLabeler')],
        'detector': [model['semi_train_cfg']],
        'data set': [cfg['train_dataloader']['dataset']],
    }
    (owner,) = owners[KNOBS[arm][knob].owner]
    owner[knob] = value
