"""What a federated image judges; the counts themselves are tested with the detector."""

from __future__ import annotations

import numpy as np
import torch

from mmdet_softpl.models.labelled_statistics import judged


def test_federated_images_judge_only_what_they_say() -> None:
    labels = torch.tensor([0, 1, 2, 2, 3])
    correct = torch.tensor([True, False, False, True, False])
    # Known: 0 and 2 (2 not exhaustively), 3; nothing is said about 1.
    federated = {7: (np.array([0, 2, 3]), np.array([2])), 9: (np.array([], dtype=np.int64), None)}
    assert judged(labels, correct, federated, 7).tolist() == [True, False, False, True, True]
    assert judged(labels, correct, federated, 8).all()
    assert not judged(labels, correct, federated, 9).any()
    assert judged(labels[:0], correct[:0], federated, 7).shape == (0,)
