"""Objects pasted into unlabelled images: their own labels, and no part in what is counted."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmdet_softpl.datasets.pasting_steps import PASTED_KEY
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.pasted_labels import apart_from, joined, pasted_objects
from mmdet_softpl.models.roi_adapter import stages_of
from mmdet_softpl.models.student_losses import class_loss, project
from tests.support.tiny import NUM_CLASSES, data_sample, multi_batch
from tests.support.tiny_teacher import tiny_teacher, total

SIZE = 28


def marked(num_instances: int = 2, **kwargs) -> DetDataSample:
    sample = data_sample(num_instances=num_instances, **kwargs)
    sample.set_metainfo({PASTED_KEY: True})
    return sample


def found(count: int, with_masks: bool = True) -> InstanceData:
    generator = torch.Generator().manual_seed(count)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator)

    corners = random(2) * 60
    made = InstanceData(
        bboxes=torch.cat([corners, corners + 5 + 20 * random(2)], 1),
        labels=(random() * NUM_CLASSES).long(),
        score_vectors=random(NUM_CLASSES + 1).softmax(1),
        **{name: random() > 0.5 for name in ('surest', 'kept', 'is_object')},
        **{
            name: random()
            for name in ('scores', 'own_scores', 'objectness', 'target_scores', 'confidences')
        },
    )
    if with_masks:
        made.mask_probs = random(SIZE, SIZE)
    return made


def test_annotations_of_an_unlabelled_image_are_no_labels() -> None:
    assert pasted_objects(data_sample()) is None
    assert pasted_objects(marked(num_instances=0)) is None
    assert len(pasted_objects(marked())) == 2


@pytest.mark.parametrize('count', [0, 1, 30])
def test_detections_of_pasted_objects_go(count: int) -> None:
    seen, truth = found(count), marked().gt_instances
    if count:
        # One of them is exactly an object.
        seen.bboxes[0] = truth.bboxes[1]
    kept = []
    for i, (x1, y1, x2, y2) in enumerate(seen.bboxes.tolist()):
        overlaps = []
        for a1, b1, a2, b2 in truth.bboxes.tolist():
            inter = max(min(x2, a2) - max(x1, a1), 0) * max(min(y2, b2) - max(y1, b1), 0)
            union = (x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - inter
            overlaps.append(inter / union)
        if max(overlaps) <= 0.5:
            kept.append(i)
    assert apart_from(seen.bboxes, truth.bboxes).tolist() == kept
    assert len(kept) < max(count, 1) and (count < 2 or kept)


@pytest.mark.parametrize('with_masks', [False, True])
@pytest.mark.parametrize('count', [0, 3])
def test_pasted_objects_are_certain(count: int, with_masks: bool) -> None:
    seen, truth = found(count, with_masks), marked().gt_instances
    both = joined(seen, truth)
    assert set(both.keys()) == set(seen.keys()) and len(both) == count + 2
    for key, values in seen.items():
        assert torch.equal(both[key][:count], values), key
        assert both[key].dtype == values.dtype, key
    new = both[count:]
    assert torch.equal(new.bboxes, truth.bboxes) and torch.equal(new.labels, truth.labels)
    for i, label in enumerate(truth.labels.tolist()):
        assert new.score_vectors[i].tolist() == [float(c == label) for c in range(NUM_CLASSES + 1)]
    for key in ('scores', 'own_scores', 'objectness', 'target_scores', 'confidences'):
        assert (new[key] == 1).all(), key
    assert (new.surest & new.kept & new.is_object).all()


def test_masks_are_cut_out_as_the_host_does() -> None:
    masks = np.zeros((2, 40, 50), dtype=np.uint8)
    masks[0, 5:15, 5:25] = 1
    masks[1, 20:40, 10:30] = np.tri(20)
    truth = InstanceData(
        bboxes=torch.tensor([[5.0, 5, 25, 15], [10.25, 20.5, 30, 40]]),
        labels=torch.tensor([0, 4]),
        masks=BitmapMasks(masks, 40, 50),
    )
    host = truth.masks.crop_and_resize(
        truth.bboxes, (SIZE, SIZE), torch.arange(2), binarize=False
    ).masks
    ours = joined(found(1), truth).mask_probs[1:]
    np.testing.assert_allclose(ours.numpy(), host, atol=1e-6)
    # What is inside is so also at the edge.
    assert ours[0].min() > 0.5 and 0.4 < ours[1].mean() < 0.6


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn', 'faster-rcnn'])
@pytest.mark.parametrize('iou_thr', [0.5, 0.9])
def test_the_teacher_says_nothing_of_pasted_objects(name: str, iou_thr: float) -> None:
    """What it sees there goes into no statistics and no label; the rest is there as before."""
    model = tiny_teacher(name, cross_class_iou_thr=iou_thr)
    other = copy.deepcopy(model)
    inputs, samples = multi_batch()
    weak = inputs['unsup_teacher']
    plain = model.label(weak, samples['unsup_teacher'])
    # On top of an object that the teacher sees.
    truth = marked()
    truth.gt_instances.bboxes[0] = plain.detections[0].bboxes[0]
    view = other.label(weak, [truth, samples['unsup_teacher'][1]])
    bboxes = truth.gt_instances.bboxes
    expected = plain.detections[0]
    expected = expected[apart_from(expected.bboxes, bboxes)]
    assert len(expected) < len(plain.detections[0])
    own = view.detections[0][:-2]
    assert (
        len(apart_from(own.bboxes, bboxes)) == len(own) == view.num_seen - len(view.detections[1])
    )
    assert [int(d.is_pasted.sum()) for d in view.detections] == [2, 0]
    # Some more may be there, whose place a detection of a pasted object had taken.
    places = (own.bboxes[:, None] == expected.bboxes).all(2).int().argmax(0)
    assert (places.diff() > 0).all() and torch.equal(own.scores[places], expected.scores)
    assert torch.equal(view.detections[0].labels[-2:], truth.gt_instances.labels)
    assert torch.equal(view.detections[1].scores, plain.detections[1].scores)
    assert other.class_state.kept.sum() == sum(int(d.kept.sum()) for d in view.detections) - 2
    assert other.class_state.num_images == 2
    if 'faster' not in name:
        assert view.detections[0].mask_probs.shape[0] == len(view.detections[0])


def test_the_student_learns_a_pasted_object_by_its_own_label() -> None:
    """Where nothing else is there, soft labels are the one-hot ones of the truth."""
    losses = {}
    for label_mode in ('soft', 'hard'):
        torch.manual_seed(0)
        model = silent_teacher(label_mode=label_mode)
        inputs, samples = multi_batch(batch_size=1)
        samples['unsup_teacher'] = [marked()]
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
        assert view.num_seen == 0 and len(view.detections[0]) == 2
        # As if it had seen an object elsewhere.
        view.num_seen = 1
        losses[label_mode] = model._loss_by_view(view, inputs, samples)
        total(losses[label_mode]).backward()
        gradient = model.student.roi_head.bbox_head.fc_cls.weight.grad
        assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
    soft, hard = losses['soft'], losses['hard']
    for key in ('unsup_loss_cls', 'unsup_loss_bbox'):
        assert soft[key] > 0 and torch.equal(soft[key], hard[key]), key
    # A binary target is the soft one but for its edge.
    torch.testing.assert_close(soft['unsup_loss_mask'], hard['unsup_loss_mask'], rtol=0.05, atol=0)


def test_offsets_are_not_for_the_labels_of_pasted_objects() -> None:
    """What is learnt of positives there is the same with any offsets."""
    grads = []
    for offset in (0.0, 2.0):
        torch.manual_seed(0)
        model = tiny_teacher(student_correction=True, objectness_thr=1.0, calibration='none')
        state = model.class_state
        state.thresholds.fill_(1.0)
        state.offsets.fill_(offset)
        inputs, samples = multi_batch(batch_size=1)
        samples['unsup_teacher'] = [marked()]
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
        assert view.detections[0].is_pasted.all()
        batch = project(view, samples['unsup_teacher'], samples['unsup_student'])
        stage = stages_of(model.student.roi_head)[0]
        logits = torch.randn(2, NUM_CLASSES + 1, generator=torch.Generator().manual_seed(1))
        logits.requires_grad_()
        rois = torch.cat([torch.zeros(2, 1), batch.bboxes[0]], 1)
        rows = inds = torch.arange(2)
        teacher = stages_of(model.teacher.roi_head)[0]
        loss = class_loss(
            stage, teacher, logits, rois, rows, inds, batch, hard=False, offsets=state.offsets
        )
        loss['loss_cls'].backward()
        grads.append(logits.grad)
    assert grads[0].abs().sum() > 0
    torch.testing.assert_close(grads[0], grads[1])


def test_a_teacher_that_sees_nothing_is_no_reason_to_call_the_rest_background() -> None:
    model = silent_teacher()
    inputs, samples = multi_batch()
    samples['unsup_teacher'][0] = marked()
    losses = model.loss(inputs, samples)
    for key, value in losses.items():
        if key.startswith('unsup_loss'):
            assert all(float(part.detach()) == 0 for part in torch.stack(_listed(value))), key


def test_what_is_not_visible_is_no_object() -> None:
    """Thin objects vanish when masks are made smaller, and leave a box."""
    sample = marked(num_instances=3)
    expected = sample.gt_instances.labels[[0, 2]]
    sample.gt_instances.masks.masks[1] = 0
    assert torch.equal(pasted_objects(sample).labels, expected)
    assert len(pasted_objects(sample).masks) == 2
    sample.gt_instances.masks.masks[:] = 0
    assert pasted_objects(sample) is None


def test_masks_that_a_transform_lost_are_named() -> None:
    sample = marked()
    del sample.gt_instances.masks
    with pytest.raises(ValueError, match=r'0\.png has pasted objects, but no masks.*unsup_teacher'):
        pasted_objects(sample)


def silent_teacher(**cfg) -> CalibratedSoftTeacher:
    """One that keeps no label and calls nothing an object."""
    model = tiny_teacher(objectness_thr=1.0, student_correction=False, **cfg)
    model.class_state.thresholds.fill_(1.0)
    return model


def _listed(value: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    return value if isinstance(value, list) else [value]
