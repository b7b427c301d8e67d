"""Boxes against masks: what a factory's converter gets wrong, and what is right."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mmdet_softpl.datasets.box_findings import box_findings, mask_box
from mmdet_softpl.datasets.config_sets import ConfiguredSet, configured_sets
from mmdet_softpl.datasets.findings import ERROR, WARNING

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def configured(ann_file: str = 'labelled.json') -> ConfiguredSet:
    masks = dict(type='LoadAnnotations', with_mask=True)
    cfg = dict(type='CocoDataset', ann_file=ann_file, pipeline=[masks])
    (one,) = configured_sets(dict(train_dataloader=dict(dataset=cfg)))
    return one


def part_of(*boxes: list[float], segmentation: Any = (SQUARE,), **keys: Any) -> dict[str, Any]:
    """One image of 100 x 80 with these boxes around one square of 20 x 20 each."""
    masks = list(segmentation) if isinstance(segmentation, tuple) else segmentation
    return dict(
        images=[dict(id=1, width=100, height=80)],
        annotations=[
            dict(id=i, image_id=1, bbox=box, segmentation=copy.deepcopy(masks), **keys)
            for i, box in enumerate(boxes)
        ],
    )


def look(part: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(f.severity, f.kind, f.count) for f in box_findings(configured(), part)]


RIGHT, CORNERS, AWAY = [10, 10, 20, 20], [10, 10, 30, 30], [50, 40, 20, 20]
KIND = 'box that is not where its object is'


def test_boxes_of_their_masks_are_right() -> None:
    assert look(part_of(RIGHT, [9.5, 10.4, 20, 20], [8, 8, 24, 24])) == []
    # Rounding of an object of two pixels is no other place.
    assert look(part_of([10, 10, 2, 2], segmentation=([11, 11, 13, 11, 13, 13],))) == []


def test_corners_for_width_and_height() -> None:
    part = part_of(CORNERS, CORNERS, RIGHT)
    assert look(part) == [(ERROR, KIND, 2)]
    (finding,) = box_findings(configured(), part)
    assert 'look like [x1, y1, x2, y2]' in finding.remedy and 'id 0; 1' in finding.detail
    assert look(part_of(CORNERS, RIGHT, RIGHT)) == [(WARNING, KIND, 1)]


def test_another_place() -> None:
    (finding,) = box_findings(configured(), part_of(AWAY, AWAY, RIGHT))
    assert finding.severity == ERROR and 'write that of the mask' in finding.remedy


def test_run_lengths_as_polygons() -> None:
    mask = np.zeros((80, 100), np.uint8)
    mask[10:30, 10:30] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    rle['counts'] = rle['counts'].decode()
    for box, found in ((RIGHT, []), (CORNERS, [(ERROR, KIND, 1)])):
        assert look(part_of(box, segmentation=rle)) == found
    assert mask_box(rle, 100, 80) == [10, 10, 20, 20]
    # One of another image is named elsewhere.
    assert mask_box(rle, 80, 100) is None and mask_box(rle, 0, 0) is None


def test_without_masks_the_image_tells() -> None:
    inside, outside = [60, 10, 39, 20], [60, 10, 99, 30]
    assert look(part_of(inside, segmentation=None)) == []
    assert look(part_of(outside, segmentation=None)) == [(ERROR, KIND, 1)]
    (finding,) = box_findings(configured(), part_of(outside, segmentation=[]))
    assert '[x1, y1, x2, y2]' in finding.remedy


@pytest.mark.parametrize(
    'segmentation',
    [dict(size=[80, 100], counts=[8000]), ([10, 10, 10, 20, 10, 30],)],
    ids=['run lengths', 'a line'],
)
def test_masks_without_a_pixel(segmentation: Any) -> None:
    assert look(part_of(RIGHT, segmentation=segmentation)) == [
        (WARNING, 'mask that covers no pixel', 1)
    ]


def test_what_the_host_leaves_out_is_named_elsewhere() -> None:
    assert look(part_of(AWAY, iscrowd=1)) == []
    assert look(part_of([0.1, 0.1, 0.3, 0.3])) == []
    assert look(part_of()) == []


def test_photos_have_nothing_to_be_named(coco_tiny: Path) -> None:
    path = coco_tiny / 'instances_train2017.json'
    assert box_findings(configured(str(path)), json.loads(path.read_text())) == []
