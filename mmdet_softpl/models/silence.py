"""A teacher that labels nothing for so long that somebody should know.

Shape letter: C foreground classes.
"""

from __future__ import annotations

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from mmdet_softpl.models.teacher_labels import TeacherView

# Iterations in a row without one pseudo-label before a warning says why.
SILENT_ITERS = 1000


class Silence:
    """Counts iterations without a pseudo-label; a warning explains every thousandth in a row.

    Attributes:
        iters: Iterations in a row so far.
    """

    def __init__(self) -> None:
        self.iters = 0

    def observe(self, view: TeacherView, thresholds: Tensor) -> None:
        """Take in the labels of an iteration.

        Args:
            view: All that the teacher saw.
            thresholds: (C,) in [0, 1].
        """
        if bool(torch.cat([seen.kept for seen in view.detections]).any()):
            self.iters = 0
            return
        self.iters += 1
        if self.iters % SILENT_ITERS:
            return
        best = max((float(d.scores.max()) for d in view.detections if len(d)), default=0.0)
        MMLogger.get_current_instance().warning(
            f'no pseudo-label for {self.iters} iterations: the lowest threshold is '
            f'{float(thresholds.min()):.3f} (semi_train_cfg.score_thr or RareBoostPseudoLabeler), '
            f'the best score of this batch {best:.3f}. Lower the threshold, or train the teacher '
            'longer.'
        )
