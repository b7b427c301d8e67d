"""Losses on unlabelled images against slow references in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.models import student_losses
from mmdet_softpl.models.roi_adapter import select_class_masks
from mmdet_softpl.models.student_losses import (
    PseudoBatch,
    _positives,
    background_scores,
    class_loss,
    mask_loss,
    project,
)
from mmdet_softpl.models.teacher_labels import TeacherView
from tests.support.tiny import detector_config, multi_batch, semi_config

SIZE = 64
MASK = 14


def make_batch(
    num_instances: int, num_classes: int, homography: Tensor | None = None, seed: int = 0
) -> PseudoBatch:
    """One image; every second instance is kept."""
    generator = torch.Generator().manual_seed(seed)
    k = num_instances
    corner = torch.rand(k, 2, generator=generator) * 30
    bboxes = torch.cat([corner, corner + 10 + 20 * torch.rand(k, 2, generator=generator)], 1)
    vectors = torch.rand(k, num_classes + 1, generator=generator)
    vectors = vectors / vectors.sum(1, keepdim=True)
    labels = torch.randint(0, num_classes, (k,), generator=generator)
    instances = InstanceData(
        bboxes=bboxes,
        labels=labels,
        scores=vectors[torch.arange(k), labels],
        score_vectors=vectors,
        target_scores=0.2 + 0.7 * torch.rand(k, generator=generator),
        kept=torch.arange(k) % 2 == 0,
        mask_probs=torch.rand(k, 28, 28, generator=generator),
    )
    return PseudoBatch(
        bboxes=[bboxes],
        labels=[labels],
        instances=instances,
        starts=[0],
        homographies=(torch.eye(3) if homography is None else homography)[None],
        teacher_shapes=torch.tensor([[SIZE, SIZE]], dtype=torch.float32),
        feats=(torch.zeros(1, 1, 8, 8),),
    )


def make_rois(inds: Tensor, batch: PseudoBatch) -> Tensor:
    """A little off the boxes of their instances; negatives in a corner."""
    rois = torch.zeros(len(inds), 5)
    rois[:, 1:] = torch.tensor([0.0, 0, 9, 7])
    for n, i in enumerate(inds.tolist()):
        if i >= 0:
            rois[n, 1:] = batch.instances.bboxes[i] + torch.tensor([1.0, -1, 2, 1])
    return rois


def positives(inds: Tensor) -> tuple[Tensor, Tensor]:
    """RoI index and instance of each positive, from (N,) instances, -1 for negatives."""
    rows = (inds >= 0).nonzero().squeeze(1)
    return rows, inds[rows]


class Teacher:
    """A stage whose logits depend on the RoI; a mirror image of it has the same ones."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.bbox_head = SimpleNamespace(loss_cls=None)

    def bbox_forward(self, feats: Any, rois: Tensor) -> dict[str, Tensor]:
        logits = torch.zeros(len(rois), self.num_classes + 1)
        logits[:, -1] = (rois[:, 1] + 2 * rois[:, 2] - rois[:, 3]) / 20
        return dict(cls_score=logits)


def teacher(num_classes: int) -> Any:
    return Teacher(num_classes)


def student(num_classes: int, loss_weight: float = 1.0, pos_weight: float = -1) -> Any:
    loss = SimpleNamespace(loss_weight=loss_weight)
    return SimpleNamespace(
        bbox_head=SimpleNamespace(num_classes=num_classes, loss_cls=loss),
        train_cfg=SimpleNamespace(pos_weight=pos_weight),
    )


def slow_class_loss(
    cls_score: Tensor,
    rois: Tensor,
    inds: Tensor,
    batch: PseudoBatch,
    hard: bool,
    offsets: Tensor,
    pos_weight: float = 1.0,
) -> float:
    """One RoI and one class after the other."""
    num_classes = cls_score.shape[1] - 1
    total, weights = 0.0, 0.0
    for n, i in enumerate(inds.tolist()):
        target = [0.0] * num_classes + [1.0]
        x1, y1, x2 = rois[n, 1:4].tolist()
        e = math.exp((x1 + 2 * y1 - x2) / 20)
        weight = e / (e + num_classes)
        if i >= 0:
            seen, label = batch.instances[i], int(batch.instances.labels[i])
            confidence, kept = float(seen.target_scores), float(seen.kept)
            target = [0.0] * (num_classes + 1)
            if hard:
                weight, target[label] = kept, 1.0
            else:
                weight = 1.0
                vector = seen.score_vectors[0].tolist()
                rest = sum(v for c, v in enumerate(vector) if c != label)
                for c, v in enumerate(vector):
                    target[c] = confidence if c == label else v * (1 - confidence) / rest
            weight *= pos_weight
        logits = [
            z + d for z, d in zip(cls_score[n].tolist(), [*offsets.tolist(), 0.0], strict=True)
        ]
        log_sum = math.log(sum(math.exp(z) for z in logits))
        total += weight * sum(t * (log_sum - z) for t, z in zip(target, logits, strict=True))
        weights += weight
    return total / max(weights, 1.0)


def call_class_loss(
    cls_score: Tensor, inds: Tensor, batch: PseudoBatch, hard: bool, offsets: Tensor, **kwargs: Any
) -> Tensor:
    c = cls_score.shape[1] - 1
    losses = class_loss(
        student(c, **kwargs),
        teacher(c),
        cls_score,
        make_rois(inds, batch),
        *positives(inds),
        batch,
        hard,
        offsets,
    )
    assert losses.keys() == {'loss_cls'}
    return losses['loss_cls']


CASES = [
    pytest.param(4, 5, [0, -1, 1, 2, 2, -1, 3, 0], id='mixed'),
    pytest.param(3, 1, [0, 1, -1, 2], id='one-class'),
    pytest.param(2, 3, [-1, -1, -1], id='background-only'),
    pytest.param(0, 3, [-1, -1], id='no-instance'),
    pytest.param(2, 3, [1, 1], id='unnamed-only'),
    pytest.param(2, 3, [], id='no-roi'),
]


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('num_instances, num_classes, inds', CASES)
def test_class_loss_is_the_slow_one(num_instances, num_classes, inds, hard) -> None:
    generator = torch.Generator().manual_seed(1)
    chosen = torch.tensor(inds, dtype=torch.long)
    batch = make_batch(num_instances, num_classes)
    cls_score = torch.randn(len(inds), num_classes + 1, generator=generator, requires_grad=True)
    offsets = torch.randn(num_classes, generator=generator)
    loss = call_class_loss(cls_score, chosen, batch, hard, offsets)
    expected = slow_class_loss(
        cls_score.detach(), make_rois(chosen, batch), chosen, batch, hard, offsets
    )
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    loss.backward()
    assert cls_score.grad is not None and torch.isfinite(cls_score.grad).all()
    heavy = call_class_loss(cls_score, chosen, batch, hard, offsets, pos_weight=3.0)
    by_hand = slow_class_loss(
        cls_score.detach(), make_rois(chosen, batch), chosen, batch, hard, offsets, 3.0
    )
    assert float(heavy.detach()) == pytest.approx(by_hand, rel=1e-5, abs=1e-6)
    twice = call_class_loss(cls_score, chosen, batch, hard, offsets, loss_weight=2.0)
    assert float(twice.detach()) == pytest.approx(2 * expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('hard', [False, True])
def test_objects_without_a_name_teach_soft_labels_alone(hard: bool) -> None:
    inds = torch.tensor([0, 1, 2, 3, -1])
    batch = make_batch(4, 3)
    cls_score = torch.randn(5, 4, requires_grad=True)
    call_class_loss(cls_score, inds, batch, hard, torch.zeros(3)).backward()
    assert cls_score.grad is not None
    unnamed = not hard
    assert (cls_score.grad.abs().sum(1) > 0).tolist() == [True, unnamed, True, unnamed, True]


def test_background_scores_belong_to_the_teachers_view() -> None:
    flip = torch.tensor([[-1.0, 0, SIZE], [0, 1, 0], [0, 0, 1]])
    batch = make_batch(2, 3, homography=flip)
    # The last one reaches beyond the teacher's image on all sides.
    rois = torch.tensor([[0.0, 4, 6, 20, 30], [0, 40, 1, 60, 9], [0, -8, -5, SIZE + 30, SIZE + 9]])
    expected = []
    for x1, y1, x2, _ in rois[:, 1:].clamp(0, SIZE).tolist():
        e = math.exp(((SIZE - x2) + 2 * y1 - (SIZE - x1)) / 20)
        expected.append(e / (e + 3))
    found = background_scores(teacher(3), rois, batch)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert background_scores(teacher(3), rois[:0], batch).shape == (0,)


def test_stages_of_a_cascade_go_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives weigh what the teacher's same stage says, on boxes that the one before refined."""
    model = MODELS.build(semi_config(detector_config('cascade-mask-rcnn')))
    inputs, samples = multi_batch()
    pairs, priors, refined = [], [], []

    def class_loss_of(stage: Any, teacher_stage: Any, *args: Any) -> dict[str, Tensor]:
        assert stage.bbox_head is model.student.roi_head.bbox_head[stage.index]
        assert teacher_stage.bbox_head is model.teacher.roi_head.bbox_head[teacher_stage.index]
        pairs.append((stage.index, teacher_stage.index))
        return class_loss(stage, teacher_stage, *args)

    def sample_of(stage: Any, boxes: Tensor, *args: Any) -> Any:
        priors.append(boxes)
        return original(stage, boxes, *args)

    original = student_losses._sample
    monkeypatch.setattr(student_losses, 'class_loss', class_loss_of)
    monkeypatch.setattr(student_losses, '_sample', sample_of)
    for head in model.student.roi_head.bbox_head:

        def refine(*args: Any, refine: Any = head.refine_bboxes) -> list[InstanceData]:
            refined.append([result.bboxes for result in refine(*args)])
            return [InstanceData(bboxes=boxes) for boxes in refined[-1]]

        monkeypatch.setattr(head, 'refine_bboxes', refine)
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    model._loss_by_view(view, inputs, samples)
    assert pairs == [(0, 0), (1, 1), (2, 2)]
    assert len(priors) == 6 and len(refined) == 2
    for stage in (1, 2):
        for image in (0, 1):
            assert torch.equal(priors[2 * stage + image], refined[stage - 1][image])


def mask_stage(logits: Tensor, inds: Tensor, loss_weight: float = 1.0) -> Any:
    loss = SimpleNamespace(loss_weight=loss_weight)
    return SimpleNamespace(
        class_mask_forward=lambda x, rois, chosen, feats, labels: select_class_masks(
            logits[chosen], labels
        ),
        mask_head=SimpleNamespace(loss_mask=loss),
    )


def bilinear(mask: Tensor, u: float, v: float) -> float:
    """Value at (u, v) in [0, 1] of cells centred at (i + 0.5) / S, 0 around them."""
    side = mask.shape[0]
    x, y = u * side - 0.5, v * side - 0.5
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < side and 0 <= column < side:
                part = (1 - abs(x - column)) * (1 - abs(y - row))
                value += part * float(mask[row, column])
    return value


def slow_mask_loss(
    logits: Tensor, rois: Tensor, inds: Tensor, batch: PseudoBatch, hard: bool
) -> float:
    total, count = 0.0, 0.0
    h = batch.homographies[0].tolist()
    for n, i in enumerate(inds.tolist()):
        if i < 0:
            continue
        seen = batch.instances[i]
        mask, box = seen.mask_probs[0], seen.bboxes[0].tolist()
        x1, y1, x2, y2 = rois[n, 1:].tolist()
        loss, visible = 0.0, 0
        for row in range(MASK):
            for column in range(MASK):
                x = x1 + (column + 0.5) / MASK * (x2 - x1)
                y = y1 + (row + 0.5) / MASK * (y2 - y1)
                w = h[2][0] * x + h[2][1] * y + h[2][2]
                px = (h[0][0] * x + h[0][1] * y + h[0][2]) / w
                py = (h[1][0] * x + h[1][1] * y + h[1][2]) / w
                visible += 0 <= px <= SIZE and 0 <= py <= SIZE
                u, v = (px - box[0]) / (box[2] - box[0]), (py - box[1]) / (box[3] - box[1])
                target = bilinear(mask, u, v) if 0 <= u <= 1 and 0 <= v <= 1 else 0.0
                if hard:
                    target = float(target > 0.5)
                channel = int(seen.labels) if logits.shape[1] > 1 else 0
                z = float(logits[n, channel, row, column])
                loss += math.log1p(math.exp(z)) - target * z
        if not bool(seen.kept) or visible < MASK * MASK / 2:
            continue
        values = [p for p in mask.flatten().tolist() if p >= 0.5]
        quality = 1.0 if hard else (sum(values) / len(values)) ** 2
        total += quality * loss / MASK**2
        count += 1
    return total / max(count, 1.0)


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('agnostic', [False, True])
@pytest.mark.parametrize('num_instances, num_classes, inds', CASES)
def test_mask_loss_is_the_slow_one(num_instances, num_classes, inds, agnostic, hard) -> None:
    shift = torch.tensor([[1.0, 0.1, 3], [0, 0.9, -1], [0, 0, 1]])
    batch = make_batch(num_instances, num_classes, homography=shift)
    chosen = torch.tensor(inds, dtype=torch.long)
    rois = make_rois(chosen, batch)
    channels = 1 if agnostic else num_classes
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(len(inds), channels, MASK, MASK, generator=generator, requires_grad=True)
    stage = mask_stage(logits, chosen)
    losses = mask_loss(stage, (), rois, torch.zeros(0), *positives(chosen), batch, hard)
    assert losses.keys() == {'loss_mask'}
    expected = slow_mask_loss(logits.detach(), rois, chosen, batch, hard)
    assert float(losses['loss_mask'].detach()) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    losses['loss_mask'].backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('shift, counts', [(32.0, True), (35.0, True), (38.0, False)])
def test_a_roi_that_the_teacher_half_saw_is_left_out(shift: float, counts: bool) -> None:
    """A RoI 40 wide, moved to the right by ``shift``: 8, 7, 6 of its 14 columns are in the view."""
    batch = make_batch(1, 2, homography=torch.tensor([[1.0, 0, shift], [0, 1, 0], [0, 0, 1]]))
    rois = torch.tensor([[0.0, 10, 10, 50, 50]])
    logits = torch.randn(1, 2, MASK, MASK, requires_grad=True)
    inds = torch.tensor([0])
    loss = mask_loss(
        mask_stage(logits, inds), (), rois, torch.zeros(0), *positives(inds), batch, False
    )
    assert (float(loss['loss_mask'].detach()) > 0) == counts


def test_the_mask_loss_has_the_weight_of_the_head() -> None:
    batch = make_batch(2, 3)
    inds = torch.tensor([0, 1, -1])
    logits = torch.randn(3, 3, MASK, MASK)
    once, twice = (
        float(
            mask_loss(
                mask_stage(logits, inds, weight),
                (),
                make_rois(inds, batch),
                torch.zeros(0),
                *positives(inds),
                batch,
                False,
            )['loss_mask']
        )
        for weight in (1.0, 2.0)
    )
    assert once > 0 and twice == pytest.approx(2 * once)


def test_positives_of_a_later_image_count_from_its_first_instance() -> None:
    """Image 0: 2 positives and 1 negative of 3 instances; image 1: 2 positives of 2."""
    sampled = [
        SimpleNamespace(
            pos_priors=torch.zeros(p, 4),
            neg_priors=torch.zeros(n, 4),
            pos_assigned_gt_inds=torch.tensor(inds),
        )
        for p, n, inds in ((2, 1, [2, 0]), (2, 3, [1, 0]))
    ]
    rows, inds = _positives(sampled, [0, 3])
    assert rows.tolist() == [0, 1, 3, 4]
    assert inds.tolist() == [2, 0, 4, 3]


def test_each_image_has_its_own_way_to_the_teachers_view() -> None:
    half = torch.diag(torch.tensor([0.5, 0.5, 1.0]))
    batch = replace(
        make_batch(2, 3),
        homographies=torch.stack([torch.eye(3), half]),
        teacher_shapes=torch.full((2, 2), float(SIZE)),
    )
    box = [4.0, 6, 20, 30]
    found = background_scores(teacher(3), torch.tensor([[0.0, *box], [1.0, *box]]), batch)
    odds = [math.exp((x1 + 2 * y1 - x2) / 20) for x1, y1, x2 in ((4, 6, 20), (2, 3, 10))]
    torch.testing.assert_close(found, torch.tensor([e / (e + 3) for e in odds]))


def test_boxes_go_back_to_the_original_image_and_then_into_the_students_view() -> None:
    """Teacher: twice the size. Student: moved by (5, 3), which comes after halving."""

    def sample(matrix: list) -> DetDataSample:
        return DetDataSample(
            metainfo=dict(homography_matrix=torch.tensor(matrix), img_shape=(64, 64))
        )

    double = [[2.0, 0, 0], [0, 2, 0], [0, 0, 1]]
    move = [[1.0, 0, 5], [0, 1, 3], [0, 0, 1]]
    found = InstanceData(bboxes=torch.tensor([[20.0, 24, 40, 60]]), labels=torch.tensor([0]))
    view = TeacherView((torch.zeros(1),), [found])
    batch = project(view, [sample(double)], [sample(move)])
    torch.testing.assert_close(batch.bboxes[0], torch.tensor([[15.0, 15, 25, 33]]))
    corner = batch.homographies[0] @ torch.tensor([15.0, 15, 1])
    torch.testing.assert_close(corner, torch.tensor([20.0, 24, 1]))
