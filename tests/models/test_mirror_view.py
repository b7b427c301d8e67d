"""The mirror image of a view: where boxes lie in it, and the mean of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.mirror_view import MirrorView, mirror_view
from mmdet_softpl.models.roi_adapter import roi_mask_probabilities, score_rois
from mmdet_softpl.models.teacher_labels import add_masks, teacher_detect
from tests.support.tiny import NUM_CLASSES, detector_config, multi_batch, semi_config

HEIGHT, WIDTH = 64, 96
BOXES = torch.tensor([[4.0, 6.0, 30.0, 40.0], [50.0, 8.0, 90.0, 60.0], [0.0, 0.0, 20.0, 64.0]])
DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-mask-rcnn')


def build(name: str = 'mask-rcnn', **cfg: object) -> CalibratedSoftTeacher:
    generous = dict(score_thr=0.15, objectness_thr=0.3, calibration_interval=1)
    model = MODELS.build(semi_config(detector_config(name), **{**generous, **cfg}))
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            if parameter.dim() > 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def mirrored(boxes: Tensor) -> Tensor:
    return torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], 1)


def metas(count: int) -> list[dict]:
    return [dict(img_shape=(HEIGHT, WIDTH)) for _ in range(count)]


@torch.no_grad()
@pytest.mark.parametrize('name', DETECTORS)
def test_mean_is_that_of_the_mirrored_image(name: str) -> None:
    """An image and its mirror image get the same mean: no box is misplaced."""
    teacher = build(name).teacher
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    boxes = [BOXES, BOXES[:1]]

    def mean(inputs: Tensor, parts: list[Tensor]) -> Tensor:
        x = teacher.extract_feat(inputs)
        rois, scores, _ = score_rois(teacher.roi_head, x, parts, metas(2))
        refined = list(rois[:, 1:].split([len(part) for part in parts]))
        # From the boxes given, which a cascade refines, so that both begin alike.
        assert name.startswith('cascade') or torch.allclose(torch.cat(refined), torch.cat(parts))
        return (scores + mirror_view(teacher, inputs).scores(teacher, parts, metas(2))) / 2

    one = mean(images, boxes)
    other = mean(images.flip(-1), [mirrored(part) for part in boxes])
    alone = score_rois(teacher.roi_head, teacher.extract_feat(images), boxes, metas(2))[1]
    assert torch.allclose(one, other, atol=1e-5)
    assert not torch.allclose(one, alone, atol=1e-3)
    assert torch.allclose(one.sum(1), torch.ones(4))


@torch.no_grad()
@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_masks_of_a_symmetric_image(name: str) -> None:
    """There the mirror shows the mirrored box of the image itself, turned."""
    teacher = build(name).teacher
    half = torch.randn(1, 3, HEIGHT, WIDTH // 2)
    images = torch.cat([half, half.flip(-1)], -1)
    labels = torch.tensor([0, 1, 2])
    view = mirror_view(teacher, images)
    masks = view.masks(teacher, [BOXES], labels)
    rois = torch.cat([torch.zeros(3, 1), mirrored(BOXES)], 1)
    expected = roi_mask_probabilities(
        teacher.roi_head, teacher.extract_feat(images), rois, labels
    ).flip(-1)
    assert torch.allclose(masks, expected, atol=1e-5)
    assert not torch.allclose(masks, expected.flip(-1), atol=1e-3)


def test_boxes_change_sides() -> None:
    teacher = build().teacher
    with torch.no_grad():
        view = mirror_view(teacher, torch.randn(1, 3, 40, 72))
    assert view.shape == (40, 72)
    found = view.boxes(torch.tensor([[0.0, 0.0, 72.0, 40.0], [0.0, 10.0, 18.0, 40.0]]))
    assert found.tolist() == [[0.0, 0.0, 72.0, 40.0], [54.0, 10.0, 72.0, 40.0]]


@torch.no_grad()
@pytest.mark.parametrize('name', DETECTORS)
def test_without_boxes(name: str) -> None:
    teacher = build(name).teacher
    view = mirror_view(teacher, torch.randn(1, 3, HEIGHT, WIDTH))
    assert view.scores(teacher, [torch.zeros(0, 4)], metas(1)).shape == (0, NUM_CLASSES + 1)


@pytest.mark.parametrize('name', DETECTORS)
def test_labels_are_means(name: str) -> None:
    """What the labels hold, recomputed at their boxes: the masks are means of both."""
    model = build(name, mirror=True)
    inputs, samples = multi_batch()
    inputs, samples = inputs['unsup_teacher'], samples['unsup_teacher']
    view = teacher_detect(model.teacher, inputs, samples, model.class_state, model.labeling_cfg)
    assert view.mirrored is not None
    add_masks(model.teacher, view)
    found = torch.cat([seen.score_vectors for seen in view.detections])
    assert len(found)
    assert torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-5)
    if name == 'faster-rcnn':
        return
    boxes = [seen.bboxes for seen in view.detections]
    labels = torch.cat([seen.labels for seen in view.detections])
    with torch.no_grad():
        mirrored = view.mirrored.masks(model.teacher, boxes, labels)
        rois = bbox2roi(boxes)
        alone = roi_mask_probabilities(model.teacher.roi_head, view.feats, rois, labels)
    masks = torch.cat([seen.mask_probs for seen in view.detections])
    assert torch.allclose(masks, (alone + mirrored) / 2, atol=1e-6)


@pytest.mark.parametrize('name', DETECTORS)
def test_trains(name: str) -> None:
    model = build(name, mirror=True).train()
    losses = model.loss(*multi_batch())
    parts = [v if torch.is_tensor(v) else sum(v) for k, v in losses.items() if 'loss' in k]
    torch.stack([part.mean() for part in parts]).sum().backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all()
        for p in model.student.parameters()
        if p.requires_grad
    )
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize('name', DETECTORS)
def test_class_scores_are_means(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror image that sees nothing halves the objectness of everything."""
    inputs, samples = multi_batch()
    inputs, samples = inputs['unsup_teacher'], samples['unsup_teacher']
    model = build(name, score_floor=0.0)
    state, cfg = model.class_state, model.labeling_cfg
    alone = teacher_detect(model.teacher, inputs, samples, state, cfg)

    def blind(self, teacher, boxes, metas) -> Tensor:
        scores = torch.zeros(sum(map(len, boxes)), NUM_CLASSES + 1)
        scores[:, -1] = 1
        return scores

    monkeypatch.setattr(MirrorView, 'scores', blind)
    both = teacher_detect(model.teacher, inputs, samples, state, replace(cfg, mirror=True))
    for one, two in zip(alone.detections, both.detections, strict=True):
        assert len(one)
        torch.testing.assert_close(two.bboxes, one.bboxes)
        torch.testing.assert_close(two.score_vectors[:, :-1], one.score_vectors[:, :-1] / 2)


def test_refuses_what_is_neither_true_nor_false() -> None:
    with pytest.raises(ValueError, match="mirror='yes'"):
        build(mirror='yes')
