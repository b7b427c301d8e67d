"""Candidates of one image: what the NMS keeps, by a slow loop."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.teacher_labels import (
    LABELS_PER_OBJECT,
    LabelingCfg,
    find_candidates,
    most_wanted,
    name_objects,
)


def kept_by_hand(bboxes: Tensor, scores: Tensor, iou_thr: float) -> list[int]:
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        overlaps = bbox_overlaps(bboxes[i : i + 1], bboxes[kept])[0] if kept else torch.zeros(1)
        if float(overlaps.max()) <= iou_thr:
            kept.append(i)
    return sorted(kept)


@pytest.mark.parametrize('num_classes', [1, 80, 13204])
def test_overlapping_boxes_of_the_last_class(num_classes: int) -> None:
    """Small boxes in a large image: class numbers must not eat up their coordinates."""
    gen = torch.Generator().manual_seed(0)
    for _ in range(30):
        corner = torch.rand(1, 2, generator=gen) * torch.tensor([1200.0, 700.0])
        corner = corner + torch.randn(4, 2, generator=gen).abs() * 5
        small = torch.cat([corner, corner + 8 + torch.rand(4, 2, generator=gen) * 24], 1)
        bboxes = torch.cat([small, torch.tensor([[100.0, 100.0, 1333.0, 800.0]])])
        foreground = torch.zeros(5, num_classes)
        foreground[:4, -1] = torch.rand(4, generator=gen) * 0.8 + 0.1
        foreground[4, 0] = 0.95
        cfg = LabelingCfg()
        found = find_candidates(foreground, torch.zeros(5), lambda rows, _, b=bboxes: b[rows], cfg)
        last = found[(found.labels == num_classes - 1) & (found.roi_inds < 4)]
        expected = kept_by_hand(small, foreground[:4, -1], cfg.iou_thr)
        assert sorted(last.roi_inds.tolist()) == expected
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert 4 in found.roi_inds.tolist()


def test_an_object_that_no_class_stands_out_of_is_found() -> None:
    """0.95 over 40 look-alikes: each class is below the floor, the object is beyond doubt."""
    foreground = torch.full((3, 40), 0.95 / 40)
    foreground[:, 7] += 1e-3
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 90, 90], [200, 200, 240, 240]])
    objectness = torch.tensor([0.95, 0.69, 0.95])
    cfg = LabelingCfg(objectness_thr=0.7, score_floor=0.05)
    found = find_candidates(foreground, objectness, lambda rows, _: boxes[rows], cfg)
    assert sorted(found.roi_inds.tolist()) == [0, 2]
    assert found.labels.tolist() == [7, 7]
    # A class that passes the floor brings no second one with it.
    foreground[0, 3] = 0.6
    found = find_candidates(foreground, objectness, lambda rows, _: boxes[rows], cfg)
    assert sorted(zip(found.roi_inds.tolist(), found.labels.tolist(), strict=True)) == [
        (0, 3),
        (2, 7),
    ]


@pytest.mark.parametrize('max_per_img', [1, 20, 60, 100, 200])
def test_look_alikes_take_no_objects_place(max_per_img: int) -> None:
    """Sixty objects: forty sure ones of three classes each, twenty without a name."""
    state = ClassState(5, 0.5)
    corners = torch.arange(60)[:, None] * torch.tensor([30.0, 0.0])
    boxes = torch.cat([corners, corners + 20], 1)
    foreground = torch.zeros(60, 5)
    foreground[:40, :3] = torch.tensor([0.6, 0.2, 0.15])
    foreground[40:] = 0.19
    objectness = foreground.sum(1)
    cfg = LabelingCfg(max_per_img=max_per_img)
    found = find_candidates(foreground, objectness, lambda rows, _: boxes[rows], cfg)
    rows = found.roi_inds
    found.objectness, found.own_scores = objectness[rows], found.scores.clone()
    found = most_wanted(name_objects(found, state, cfg), max_per_img)
    assert len(found) == min(max_per_img, 40 * 3 + 20 * 5)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert int(found.kept.sum()) == min(max_per_img, 40)
    assert int(found.is_object.sum()) == min(max_per_img, 60)


@pytest.mark.parametrize('same_class', [False, True])
def test_what_shows_a_pasted_object_takes_no_others_place(same_class: bool) -> None:
    """A sure detection of the pasted object overlaps one of what is beside it."""
    boxes = torch.tensor([[0.0, 0, 110, 100], [33, 0, 143, 100], [0, 300, 50, 350]])
    pasted = InstanceData(bboxes=torch.tensor([[0.0, 0, 98, 100]]), labels=torch.tensor([0]))
    foreground = torch.zeros(3, 2)
    foreground[0, 0], foreground[2, 0] = 0.9, 0.8
    foreground[1, 0 if same_class else 1] = 0.6
    state, cfg = ClassState(2, 0.5), LabelingCfg()
    surest = []
    for objects in (None, pasted):
        found = find_candidates(
            foreground, foreground.sum(1), lambda rows, _: boxes[rows], cfg, pasted=objects
        )
        found.objectness, found.own_scores = found.scores.clone(), found.scores.clone()
        name_objects(found, state, cfg)
        surest.append(found.roi_inds[found.surest].tolist())
    assert surest == [[0, 2], [2, 1]]


def test_no_candidate() -> None:
    found = find_candidates(
        torch.zeros(3, 5), torch.zeros(3), lambda rows, _: torch.ones(len(rows), 4), LabelingCfg()
    )
    assert len(found) == 0 and found.bboxes.shape == (0, 4)


def instances(**fields: list) -> InstanceData:
    found = InstanceData(**{name: torch.tensor(values) for name, values in fields.items()})
    found.own_scores = found.scores.clone()
    return found


def test_a_label_above_its_threshold_goes_before_a_surer_one() -> None:
    """Two classes for one box: 0.6 where 0.7 is asked for, 0.35 where 0.3 is."""
    state = ClassState(2, 0.5)
    state.thresholds.copy_(torch.tensor([0.7, 0.3]))
    found = instances(
        bboxes=[[0.0, 0, 9, 9]] * 2, labels=[0, 1], scores=[0.6, 0.35], objectness=[0.95] * 2
    )
    named = name_objects(found, state, LabelingCfg())
    assert named.surest.tolist() == named.kept.tolist() == named.is_object.tolist() == [False, True]
    # Of two that are below, the surer one.
    state.thresholds.fill_(0.9)
    named = name_objects(found, state, LabelingCfg())
    assert named.surest.tolist() == named.is_object.tolist() == [True, False]
    assert not named.kept.any()


@pytest.mark.parametrize('count', range(1, 7))
def test_what_goes_first_at_the_limit(count: int) -> None:
    """Kept; objects without a name, by objectness; the surest labels of others; the rest."""
    found = instances(
        #       rest, second object, other, kept, first object, kept
        scores=[0.45, 0.5, 0.4, 0.3, 0.2, 0.35],
        objectness=[0.6, 0.75, 0.6, 0.9, 0.8, 0.71],
        surest=[False, True, True, True, True, True],
        is_object=[False, True, False, True, True, True],
        kept=[False, False, False, True, False, True],
    )
    order = [5, 3, 4, 1, 2, 0]
    chosen = most_wanted(found, count).scores.tolist()
    assert chosen == [found.scores[i] for i in sorted(order[:count])]


def test_an_image_has_so_many_labels_an_object_at_most() -> None:
    """More is not worth a comparison of each with each."""
    corners = torch.arange(60)[:, None] * torch.tensor([30.0, 0.0])
    boxes = torch.cat([corners, corners + 20], 1)
    foreground = torch.linspace(0.9, 0.1, 60)[:, None]
    cfg = LabelingCfg(max_per_img=3)
    found = find_candidates(foreground, foreground[:, 0], lambda rows, _: boxes[rows], cfg)
    assert found.roi_inds.tolist() == list(range(3 * LABELS_PER_OBJECT))
