"""Per-class state of a semi-supervised detector: what a checkpoint must carry.

Shape legend: C foreground classes, S score bins, B confidence bins.
"""

from __future__ import annotations

import torch
from mmengine.dist import get_rank
from torch import Tensor, nn

from mmdet_softpl.functional import uncalibrated

SCORE_BINS = 100
CONFIDENCE_BINS = 15


class ClassState(nn.Module):
    """Buffers of the outer detector that the mean teacher must not average.

    The detector reads them and adds to the accumulators; ``RareBoostPseudoLabeler`` computes
    ``boosts``, ``wanted_boosts``, ``own_boosts``, ``thresholds`` and ``prototype_weights``; the
    detector itself refreshes ``calibration``, ``confidence_gain`` and ``offsets``. Without the hook
    the boosts are 1, the thresholds fixed.

    Args:
        num_classes: C.
        score_thr: Initial threshold of every class, in [0, 1].
        calibrates: False: the calibration table of a checkpoint is left out.
        corrects: False: the offsets of a checkpoint are left out.

    Attributes:
        groups: (C,) long, 0 rare, 1 common, 2 frequent (0 until a hook says otherwise).
        boosts: (C,) factors > 0 of the teacher's class scores.
        wanted_boosts: (C,) factors > 0 by which each class is meant to be over-represented among
            the labels; not in the checkpoint, since settings and labelled set give them.
        own_boosts: (C,) factors > 0 under which what the network itself says, without prototypes,
            has the class shares of the labelled images: for confidences alone.
        prototype_weights: (C,) in [0, 1], weight of the prototype evidence per class.
        thresholds: (C,) in [0, 1], the lowest score of a kept pseudo-label.
        calibration: (C, B) calibrated score at the bin centres.
        confidence_gain: () factor >= 1 by which label smoothing lowers the network's scores; 1
            where calibration may raise scores, and so has found that already, and without it.
        offsets: (C,) logit offsets of the student on unlabelled images.
        reliability: (3, C, B) count, correct and confidence sum of the teacher on labelled
            images, decayed at every refresh.
        score_histogram: (C, S) teacher detections on unlabelled images since the last refresh.
        kept: (C,) pseudo-labels kept since the last refresh.
        mass: (C,) soft labels of all objects, summed since the last refresh; 0 where labels are
            hard.
        own_mass: (C,) the same of what the network itself says, under ``own_boosts``.
        num_images: () unlabelled images since the last refresh.
        new_reliability: (3, C, B) what was seen since the last refresh.
        offset_counts: (2, C) instances that the teacher's labels expect, without offsets and
            wanted boosts, and labelled ones, since the last refresh.
    """

    boosts: Tensor
    wanted_boosts: Tensor
    own_boosts: Tensor
    prototype_weights: Tensor
    thresholds: Tensor
    groups: Tensor
    calibration: Tensor
    confidence_gain: Tensor
    offsets: Tensor
    reliability: Tensor
    score_histogram: Tensor
    kept: Tensor
    mass: Tensor
    own_mass: Tensor
    num_images: Tensor
    new_reliability: Tensor
    offset_counts: Tensor

    #: Summed over ranks at a refresh; each rank fills its own between two of them.
    ACCUMULATORS = (
        'score_histogram',
        'kept',
        'mass',
        'own_mass',
        'num_images',
        'new_reliability',
        'offset_counts',
    )

    def __init__(
        self, num_classes: int, score_thr: float, calibrates: bool = True, corrects: bool = True
    ) -> None:
        super().__init__()
        self.calibrates, self.corrects = calibrates, corrects
        c, b = num_classes, CONFIDENCE_BINS
        self.register_buffer('groups', torch.zeros(c, dtype=torch.long))
        self.register_buffer('boosts', torch.ones(c))
        self.register_buffer('wanted_boosts', torch.ones(c), persistent=False)
        self.register_buffer('own_boosts', torch.ones(c))
        self.register_buffer('prototype_weights', torch.zeros(c))
        self.register_buffer('thresholds', torch.full((c,), float(score_thr)))
        self.register_buffer('calibration', uncalibrated(c, CONFIDENCE_BINS))
        self.register_buffer('confidence_gain', torch.ones(()))
        self.register_buffer('offsets', torch.zeros(c))
        self.register_buffer('reliability', torch.zeros(3, c, b))
        self.register_buffer('score_histogram', torch.zeros(c, SCORE_BINS))
        self.register_buffer('kept', torch.zeros(c))
        self.register_buffer('mass', torch.zeros(c))
        self.register_buffer('own_mass', torch.zeros(c))
        self.register_buffer('num_images', torch.zeros(()))
        self.register_buffer('new_reliability', torch.zeros(3, c, b))
        self.register_buffer('offset_counts', torch.zeros(2, c))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.boosts)

    def forget_labeller(self, score_thr: float) -> None:
        """Set what ``RareBoostPseudoLabeler`` does to what it is without that hook."""
        self.boosts.fill_(1)
        self.own_boosts.fill_(1)
        self.prototype_weights.zero_()
        self.thresholds.fill_(score_thr)
        self.groups.zero_()

    def clear(self, *names: str) -> None:
        """Zero the named accumulators."""
        for name in names:
            getattr(self, name).zero_()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        # Checkpoints before 2026-12 do not have them.
        for name in ('own_boosts', 'own_mass', 'confidence_gain'):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        # Switched off in the config of a training that goes on from one that had it.
        if not self.calibrates:
            self.calibration.copy_(uncalibrated(self.num_classes, CONFIDENCE_BINS))
            self.confidence_gain.fill_(1)
        if not self.corrects:
            self.clear('offsets')
        # A checkpoint holds rank 0's share of the accumulators; every rank going on with it
        # would count it world_size times.
        if get_rank() > 0:
            self.clear(*self.ACCUMULATORS)
