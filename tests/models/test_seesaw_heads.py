"""CalibratedSoftTeacher over box heads with mmdet's Seesaw loss."""

from __future__ import annotations

import math
from inspect import signature
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.models.layers.normed_predictor import NormedLinear
from mmdet.models.losses import SeesawLoss
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.class_logits import class_logits
from mmdet_softpl.models.roi_adapter import missing_losses, score_rois, stages_of
from mmdet_softpl.models.student_losses import class_loss
from tests.models.test_student_losses import make_batch, make_rois, positives
from tests.support.tiny import (
    GENEROUS,
    NUM_CLASSES,
    detector_config,
    lively,
    multi_batch,
    semi_config,
    use_smoothed_head,
)

# mmdet misspells it, the onedl fork does not.
TEMPERATURE = next(name for name in signature(NormedLinear).parameters if name.startswith('temp'))
DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-mask-rcnn')


def build(
    name: str, smoothed: bool, sampler: dict | None = None, **cfg: Any
) -> CalibratedSoftTeacher:
    detector = detector_config(name)
    if sampler is not None:
        detector.train_cfg.rcnn.sampler = sampler
    heads = detector.roi_head.bbox_head
    for head in heads if isinstance(heads, list) else [heads]:
        head.update(
            cls_predictor_cfg={'type': 'NormedLinear', TEMPERATURE: 20},
            loss_cls=dict(type='SeesawLoss', p=0.8, q=2.0, num_classes=NUM_CLASSES),
        )
    if smoothed:
        use_smoothed_head(detector, warmup_iters=0, refresh_interval=1)
    return lively(MODELS.build(semi_config(detector, **{**GENEROUS, 'score_thr': 0.05, **cfg})))


@pytest.mark.parametrize('smoothed', [False, True])
@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.parametrize('label_mode', ['soft', 'hard'])
def test_trains(name: str, smoothed: bool, label_mode: str) -> None:
    soft = label_mode == 'soft'
    model = build(name, smoothed, label_mode=label_mode, student_correction=soft)
    counts = [
        stage.bbox_head.loss_cls.cum_samples.clone() for stage in stages_of(model.student.roi_head)
    ]
    losses = model.loss(*multi_batch())
    # Two class losses of the host's, or one of ours; nothing on top, and none of them doubled.
    prefixes = ['s0.', 's1.', 's2.'] if name.startswith('cascade') else ['']
    found = {key for key in losses if key.startswith('sup_') and '_cls' in key and 'rpn' not in key}
    parts = [''] if smoothed else ['_classes', '_objectness']
    found = {key for key in found if 'loss' in key}
    assert found == {f'sup_{prefix}loss_cls{part}' for prefix in prefixes for part in parts}
    assert all(float(losses[f'unsup_{prefix}loss_cls']) > 0 for prefix in prefixes)
    total = sum(
        torch.as_tensor(v).mean() if torch.is_tensor(v) else sum(v).mean()
        for k, v in losses.items()
        if 'loss' in k
    )
    assert math.isfinite(float(total))
    total.backward()
    for parameter in model.student.parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
    # Pseudo-labels are nothing that was seen of a class.
    sampled = 2 * 32
    for before, stage in zip(counts, stages_of(model.student.roi_head), strict=True):
        assert 0 < float((stage.bbox_head.loss_cls.cum_samples - before).sum()) <= sampled


@pytest.mark.parametrize('name', DETECTORS)
def test_scores_are_the_hosts(name: str) -> None:
    model = build(name, smoothed=True)
    teacher = model.teacher.eval()
    inputs, samples = multi_batch()
    x = teacher.extract_feat(inputs['unsup_teacher'])
    metas = [sample.metainfo for sample in samples['unsup_teacher']]
    boxes = torch.tensor([[4.0, 4, 40, 50], [10, 20, 90, 80], [0, 0, 95, 95]])
    with torch.no_grad():
        _, scores, _ = score_rois(teacher.roi_head, x, [boxes, boxes[:1]], metas)
        proposals = [InstanceData(bboxes=boxes), InstanceData(bboxes=boxes[:1])]
        # Without test settings it gives the scores of all classes and background.
        results = teacher.roi_head.predict_bbox(x, metas, proposals, None, rescale=False)
    torch.testing.assert_close(scores, torch.cat([result.scores for result in results]))
    torch.testing.assert_close(scores.sum(1), torch.ones(4))


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('inds', [[0, -1, 1, 2], [-1, -1], []])
@pytest.mark.parametrize('num_classes', [1, 5])
def test_the_unsupervised_loss_is_cross_entropy_of_the_activation(
    hard: bool, inds: list[int], num_classes: int
) -> None:
    """The same numbers as for a softmax head whose probabilities are Seesaw's activation."""
    chosen, batch = torch.tensor(inds, dtype=torch.long), make_batch(3, num_classes)
    rois, offsets = make_rois(chosen, batch), torch.randn(num_classes)
    scores = torch.randn(len(inds), num_classes + 2, requires_grad=True)
    teacher_scores = torch.randn(len(inds), num_classes + 2)

    def loss_of(loss: Any, student: Tensor, teacher: Tensor) -> Tensor:
        head = SimpleNamespace(num_classes=num_classes, loss_cls=loss)
        stage: Any = SimpleNamespace(bbox_head=head, train_cfg=SimpleNamespace(pos_weight=-1))
        seen: Any = SimpleNamespace(
            bbox_head=head, bbox_forward=lambda feats, rois: dict(cls_score=teacher)
        )
        parts = class_loss(stage, seen, student, rois, *positives(chosen), batch, hard, offsets)
        return parts['loss_cls']

    seesaw = SeesawLoss(num_classes=num_classes)
    ours = loss_of(seesaw, scores, teacher_scores)
    plain = SimpleNamespace(loss_weight=1.0)
    theirs = loss_of(
        plain,
        seesaw.get_activation(scores).log(),
        seesaw.get_activation(teacher_scores).log(),
    )
    torch.testing.assert_close(ours, theirs)
    mine, expected = (torch.autograd.grad(value, scores)[0] for value in (ours, theirs))
    torch.testing.assert_close(mine, expected)


def test_class_logits_of_other_heads_are_their_scores() -> None:
    head: Any = SimpleNamespace(loss_cls=None)
    scores = torch.randn(3, 4, dtype=torch.float16)
    torch.testing.assert_close(class_logits(head, scores), scores.float())


@pytest.mark.parametrize('name', DETECTORS)
def test_nothing_is_missing_where_two_class_losses_are_present(name: str) -> None:
    model = build(name, smoothed=False)
    prefixes = ['s0.', 's1.', 's2.'] if name.startswith('cascade') else ['']
    parts = ('loss_cls_objectness', 'loss_cls_classes', 'loss_bbox', 'loss_mask')
    present = [prefix + part for prefix in prefixes for part in parts]
    assert missing_losses(model.student.roi_head, present) == {}
    rest = [key for key in present if 'cls' not in key]
    missing = missing_losses(model.student.roi_head, rest)
    assert {f'{prefix}loss_cls' for prefix in prefixes} <= missing.keys()


def test_ohem_needs_a_head_that_smooths() -> None:
    sampler = dict(type='OHEMSampler', num=32, pos_fraction=0.25, neg_pos_ub=-1)
    with pytest.raises(ValueError, match=r'OHEMSampler.*SeesawLoss'):
        build('faster-rcnn', smoothed=False, sampler=sampler)
    model = build('faster-rcnn', smoothed=True, sampler=sampler)
    losses = model.loss(*multi_batch())
    assert math.isfinite(float(losses['unsup_loss_cls']))
    # What the sampler asks about has not been seen.
    assert float(model.student.roi_head.bbox_head.loss_cls.cum_samples.sum()) <= 2 * 32


def test_counts_are_a_ranks_own_and_go_with_the_checkpoint() -> None:
    model = build('mask-rcnn', smoothed=True)
    model.loss(*multi_batch())
    key = 'roi_head.bbox_head.loss_cls.cum_samples'
    assert f'student.{key}' in model._ddp_params_and_buffers_to_ignore
    counts = model.state_dict()[f'student.{key}']
    assert counts.sum() > 0
    other = build('mask-rcnn', smoothed=True)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.state_dict()[f'student.{key}'], counts)


@pytest.mark.parametrize('num_classes', [NUM_CLASSES, NUM_CLASSES + 1])
def test_a_softmax_head_of_as_many_outputs_is_refused_too(num_classes: int) -> None:
    model = build('faster-rcnn', smoothed=False)
    other = MODELS.build(detector_config('faster-rcnn', num_classes=num_classes))
    with pytest.raises(ValueError, match=rf'{num_classes} classes, but.*5 SeesawLoss classes'):
        model.load_state_dict(other.state_dict(), strict=False)


def test_a_softmax_checkpoint_is_refused() -> None:
    model = build('mask-rcnn', smoothed=True)
    plain = MODELS.build(semi_config(use_smoothed_head(detector_config()), **GENEROUS))
    with pytest.raises(
        ValueError, match=rf'{NUM_CLASSES} classes, but.*{NUM_CLASSES} SeesawLoss classes'
    ):
        model.load_state_dict(plain.student.state_dict())
