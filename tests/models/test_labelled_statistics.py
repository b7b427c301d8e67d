"""What a federated image judges; the counts themselves are tested with the detector."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.labelled_statistics import observe_image, spoken_of


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


def test_a_pasted_object_counts_where_it_is_found() -> None:
    """Its class is none that the LVIS image speaks of."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    sample = DetDataSample(metainfo=dict(img_id=1))
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([1]))
    counts = []
    # Right; of the class that the image speaks of; of a third one; and beside the object.
    for label, where in ((1, box), (0, box), (2, box), (1, box + 50)):
        state, scores = ClassState(3, 0.5), torch.full((1,), 0.6)
        seen = InstanceData(
            bboxes=where,
            scores=scores,
            labels=torch.tensor([label]),
            score_vectors=torch.tensor([[0.3, 0.3, 0.3, 0.1]]),
            target_scores=scores,
        )
        observe_image(state, seen, sample, {1: (np.array([0]), None)})
        counts.append([float(part.sum()) for part in state.new_reliability[:2]])
    assert counts == [[1, 1], [1, 0], [0, 0], [0, 0]]


def test_a_calibrated_teacher_expects_what_federated_images_hold() -> None:
    """Ten look-alikes an image, right in their posterior, and images that name one kind of them."""
    posterior = torch.tensor([0.6, 0.4, 0.0, 0.0])
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(10)])
    truth = torch.tensor([0] * 6 + [1] * 4)
    nothing = np.array([], dtype=np.int64)
    # Image 0 says all; 1 and 2 one class each, 3 none, 4 both but one of them only in part.
    federated = {
        1: (np.array([0]), None),
        2: (np.array([1, 2]), None),
        3: (nothing, None),
        4: (np.array([0, 1]), np.array([1])),
    }
    named = {0: [0, 1], 1: [0], 2: [1], 3: [], 4: [0]}
    # In any order of the teacher's guesses: the surest class of all is 0.
    seen = InstanceData(
        bboxes=boxes,
        scores=torch.full((10,), 0.6),
        labels=torch.zeros(10, dtype=torch.long),
        score_vectors=posterior.repeat(10, 1),
        target_scores=torch.full((10,), 0.6),
    )
    for img_id, classes in named.items():
        state = ClassState(3, 0.5)
        keep = torch.isin(truth, torch.tensor(classes, dtype=torch.long))
        sample = DetDataSample(metainfo=dict(img_id=img_id))
        sample.gt_instances = InstanceData(bboxes=boxes[keep], labels=truth[keep])
        observe_image(state, seen, sample, federated)
        counts = [6.0 * (0 in classes), 4.0 * (1 in classes), 0.0]
        torch.testing.assert_close(state.offset_counts, torch.tensor([counts, counts]))


def test_what_offsets_correct_already_is_not_corrected_again() -> None:
    """Calibrated labels that are off by the offsets: the student's would be right."""
    offsets = torch.tensor([1.0, -0.7, 0.3])
    posterior = torch.tensor([0.6, 0.4, 1e-9, 1e-9])
    shifted = (posterior.log() + F.pad(offsets, (0, 1))).softmax(0)
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(10)])
    state = ClassState(3, 0.5)
    state.offsets.copy_(offsets)
    seen = InstanceData(
        bboxes=boxes,
        # Boosted ones, which are no probabilities.
        scores=torch.full((10,), 0.95),
        labels=torch.zeros(10, dtype=torch.long),
        score_vectors=shifted.repeat(10, 1),
        target_scores=shifted[:1].repeat(10),
    )
    sample = DetDataSample(metainfo=dict(img_id=0))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0] * 6 + [1] * 4))
    observe_image(state, seen, sample, {})
    torch.testing.assert_close(state.offset_counts, torch.tensor([[6.0, 4.0, 0.0]] * 2))
