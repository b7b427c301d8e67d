"""Mirrored and enlarged copies of a view: where boxes lie in them, and the mean over them."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.extra_views import ExtraView, extra_views, mean_scores
from mmdet_softpl.models.roi_adapter import roi_mask_probabilities, score_rois
from mmdet_softpl.models.teacher_labels import add_masks, teacher_detect
from tests.support.tiny import NUM_CLASSES, detector_config, multi_batch, semi_config

HEIGHT, WIDTH = 64, 96
BOXES = torch.tensor([[4.0, 6.0, 30.0, 40.0], [50.0, 8.0, 90.0, 60.0], [0.0, 0.0, 20.0, 64.0]])
DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-mask-rcnn')


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


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
    """An image and its mirror image get the same mean: no copy is left out or misplaced."""
    teacher = build(name).teacher
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    boxes = [BOXES, BOXES[:1]]

    def mean(inputs: Tensor, parts: list[Tensor]) -> Tensor:
        x = teacher.extract_feat(inputs)
        rois, scores, _ = score_rois(teacher.roi_head, x, parts, metas(2))
        refined = list(rois[:, 1:].split([len(part) for part in parts]))
        # From the boxes given, which a cascade refines, so that both begin alike.
        assert name.startswith('cascade') or torch.allclose(torch.cat(refined), torch.cat(parts))
        extra = extra_views(teacher, inputs, mirror=True, zooms=(1.5,))
        assert len(extra) == 3
        return mean_scores(teacher, scores, parts, metas(2), extra)

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
    (view,) = extra_views(teacher, images, mirror=True, zooms=())
    masks = view.masks(teacher, [BOXES], labels)
    rois = torch.cat([torch.zeros(3, 1), mirrored(BOXES)], 1)
    expected = roi_mask_probabilities(
        teacher.roi_head, teacher.extract_feat(images), rois, labels
    ).flip(-1)
    assert torch.allclose(masks, expected, atol=1e-5)
    assert not torch.allclose(masks, expected.flip(-1), atol=1e-3)


def test_boxes_follow_the_rounded_size() -> None:
    teacher = build().teacher
    with torch.no_grad():
        views = extra_views(teacher, torch.randn(1, 3, 40, 72), mirror=True, zooms=(1.25,))
    assert [view.shape for view in views] == [(40, 72), (64, 96), (64, 96)]
    whole = torch.tensor([[0.0, 0.0, 72.0, 40.0]])
    left = torch.tensor([[0.0, 10.0, 18.0, 40.0]])
    for view in views:
        height, width = view.shape
        assert torch.allclose(view.boxes(whole), torch.tensor([[0.0, 0.0, width, height]]))
        expected = [0.0, height / 4, width / 4, height]
        if view.mirrored:
            expected = [width * 3 / 4, height / 4, width, height]
        assert torch.allclose(view.boxes(left), torch.tensor([expected]))


@torch.no_grad()
@pytest.mark.parametrize('name', DETECTORS)
def test_without_boxes(name: str) -> None:
    teacher = build(name).teacher
    extra = extra_views(teacher, torch.randn(1, 3, HEIGHT, WIDTH), mirror=True, zooms=(1.5,))
    scores = torch.zeros(0, NUM_CLASSES + 1)
    assert mean_scores(teacher, scores, [torch.zeros(0, 4)], metas(1), extra).shape == scores.shape


def test_without_copies_nothing_is_done() -> None:
    scores = torch.rand(3, NUM_CLASSES + 1)
    assert mean_scores(build().teacher, scores, [BOXES], metas(1), []) is scores


@pytest.mark.parametrize('name', DETECTORS)
def test_labels_are_means(name: str) -> None:
    """What the labels hold, recomputed at their boxes: the masks are means over all copies."""
    model = build(name, mirror=True, zooms=(1.5,))
    inputs, samples = multi_batch()
    inputs, samples = inputs['unsup_teacher'], samples['unsup_teacher']
    view = teacher_detect(model.teacher, inputs, samples, model.class_state, model.labeling_cfg)
    assert len(view.extra) == 3
    add_masks(model.teacher, view)
    found = torch.cat([seen.score_vectors for seen in view.detections])
    assert len(found)
    assert torch.allclose(found.sum(1), torch.ones(len(found)), atol=1e-5)
    if name == 'faster-rcnn':
        return
    boxes = [seen.bboxes for seen in view.detections]
    labels = torch.cat([seen.labels for seen in view.detections])
    one_look = ExtraView(view.feats, tuple(inputs.shape[-2:]), torch.ones(4), False)
    with torch.no_grad():
        looks = [look.masks(model.teacher, boxes, labels) for look in (one_look, *view.extra)]
    masks = torch.cat([seen.mask_probs for seen in view.detections])
    assert torch.allclose(masks, sum(looks) / 4, atol=1e-6)


@pytest.mark.parametrize('name', DETECTORS)
def test_trains(name: str) -> None:
    model = build(name, mirror=True, zooms=(1.5,)).train()
    losses = model.loss(*multi_batch())
    parts = [v if torch.is_tensor(v) else sum(v) for k, v in losses.items() if 'loss' in k]
    torch.stack([part.mean() for part in parts]).sum().backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all()
        for p in model.student.parameters()
        if p.requires_grad
    )
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize(
    ('key', 'value', 'said'),
    [
        ('mirror', 'yes', "mirror='yes'"),
        ('zooms', 1.25, 'zooms takes a list of factors, got 1.25'),
        ('zooms', (1.25, 0), r'zooms must lie in \(0, inf\), got 0'),
    ],
)
def test_refuses(key: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(**{key: value})
