"""What a federated image judges; the counts themselves are tested with the detector."""

from __future__ import annotations

import numpy as np
import torch

from mmdet_softpl.models.labelled_statistics import spoken_of


def test_federated_images_judge_only_what_they_say() -> None:
    labels = torch.tensor([0, 1, 2, 2, 3])
    # Known: 0 and 2 (2 not exhaustively), 3; nothing is said about 1.
    federated = {7: (np.array([0, 2, 3]), np.array([2])), 9: (np.array([], dtype=np.int64), None)}
    told, loose = spoken_of(labels, federated, 7)
    assert told.tolist() == [True, False, True, True, True]
    assert loose.tolist() == [False, False, True, True, False]
    told, loose = spoken_of(labels, federated, 8)
    assert told.all() and not loose.any()
    told, loose = spoken_of(labels, federated, 9)
    assert not told.any() and not loose.any()
    assert [part.shape for part in spoken_of(labels[:0], federated, 7)] == [(0,), (0,)]
