"""spoil_labels: every kind is what it says, measured with pycocotools."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from mmdet_softpl.datasets.wrong_labels import (
    EMPTY_IOU,
    SHIFTED_IOU,
    WRONG_KINDS,
    right_and_wrong_labels,
    spoil_labels,
)


@pytest.fixture(scope='module')
def shapes(tiny_shapes: Path) -> dict[str, Any]:
    return json.loads((tiny_shapes / 'annotations' / 'train.json').read_text())


def key(annotation: dict[str, Any]) -> tuple:
    return annotation['image_id'], tuple(annotation['bbox'])


def iou(a: list[float], b: list[float]) -> float:
    return float(mask_utils.iou([a], [b], [0])[0, 0])


@pytest.mark.parametrize('kind', WRONG_KINDS)
def test_kind(shapes: dict[str, Any], kind: str) -> None:
    before = copy.deepcopy(shapes)
    spoilt = spoil_labels(shapes, 1.0, 0, [kind])
    assert shapes == before
    true = {key(a): a for a in shapes['annotations']}
    family = {c['id']: c['supercategory'] for c in shapes['categories']}
    wrong = [a for a in spoilt['annotations'] if a['made'] == kind]
    assert len({a['id'] for a in spoilt['annotations']}) == len(spoilt['annotations'])
    if kind == 'missing':
        assert not wrong and spoilt['annotations'] == []
        assert spoilt['missing'] == shapes['annotations']
        return
    assert len(wrong) > 0.5 * len(true) and spoilt['missing'] == []
    for annotation in wrong:
        if kind in ('look_alike', 'other_class'):
            own, new = true[key(annotation)]['category_id'], annotation['category_id']
            assert own != new and (family[own] == family[new]) == (kind == 'look_alike')
            continue
        others = [a['bbox'] for a in shapes['annotations'] if key(a)[0] == annotation['image_id']]
        best = max(iou(annotation['bbox'], box) for box in others)
        if kind == 'empty':
            assert best <= EMPTY_IOU + 1e-9
        else:
            assert SHIFTED_IOU[0] - 1e-9 <= best <= SHIFTED_IOU[1] + 1e-9
        # The mask goes with its box, and stays whole.
        np.testing.assert_allclose(
            mask_utils.toBbox(annotation['segmentation']), annotation['bbox']
        )
        assert mask_utils.area(annotation['segmentation']) == annotation['area']
    if kind == 'empty':
        right = [a for a in spoilt['annotations'] if a['made'] == 'right']
        assert {key(a) for a in right} == set(true)


def test_share_and_seed(shapes: dict[str, Any]) -> None:
    spoilt = spoil_labels(shapes, 0.4, 1)
    counts = Counter(a['made'] for a in spoilt['annotations'])
    wrong = len(spoilt['missing']) + sum(counts[kind] for kind in WRONG_KINDS)
    assert 0.3 < wrong / len(shapes['annotations']) < 0.5
    assert all(counts[kind] > 0 for kind in WRONG_KINDS if kind != 'missing')
    assert spoil_labels(shapes, 0.4, 1) == spoilt
    assert spoil_labels(shapes, 0.4, 2) != spoilt
    untouched = spoil_labels(shapes, 0.0, 1)
    assert [key(a) for a in untouched['annotations']] == [key(a) for a in shapes['annotations']]


def test_polygons_move_and_crowd_stays(good: dict[str, Any]) -> None:
    good['annotations'][1]['iscrowd'] = 1
    for seed in range(20):
        spoilt = spoil_labels(good, 1.0, seed, ['shifted'])
        first, crowd, _ = spoilt['annotations']
        assert crowd['made'] == 'right' and crowd['bbox'] == good['annotations'][1]['bbox']
        if first['made'] == 'right':
            continue
        offset = np.array(first['bbox'][:2]) - good['annotations'][0]['bbox'][:2]
        before = np.reshape(good['annotations'][0]['segmentation'][0], (-1, 2))
        np.testing.assert_allclose(
            np.reshape(first['segmentation'][0], (-1, 2)) - before, [offset] * 4
        )
        return
    pytest.fail('no seed moved the first box')


def test_impossible_kinds_leave_the_label_right(good: dict[str, Any]) -> None:
    # One family (none is given), so there is no class of another one.
    spoilt = spoil_labels(good, 1.0, 0, ['other_class'])
    assert [a['made'] for a in spoilt['annotations']] == ['right'] * 3
    for image in good['images']:
        image.update(height=10, width=60)
    good['annotations'] = [dict(good['annotations'][0], bbox=[0, 0, 60, 10])]
    for kind in ('empty', 'shifted'):
        spoilt = spoil_labels(good, 1.0, 0, [kind])
        assert [a['made'] for a in spoilt['annotations']] == ['right']


def test_errors(good: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'share must lie in \[0, 1\]'):
        spoil_labels(good, 1.5, 0)
    with pytest.raises(ValueError, match=r"unknown kinds \['blurred'\]"):
        spoil_labels(good, 0.5, 0, ['blurred'])


def test_every_label_right_with_wrong_ones_beside_it(shapes: dict) -> None:
    both = right_and_wrong_labels(shapes, 2, 0, WRONG_KINDS[:-1])
    labels = both['annotations']
    right = [a for a in labels if a['made'] == 'right']
    assert [{**a, 'id': 0, 'made': None} for a in right] == [
        {**a, 'id': 0, 'made': None} for a in shapes['annotations']
    ]
    wrong = Counter(a['made'] for a in labels) - Counter(right=len(right))
    # Some have no room for a kind.
    assert 1.5 * len(right) < wrong.total() <= 2 * len(right)
    assert set(wrong) == set(WRONG_KINDS[:-1])
    assert [a['id'] for a in labels] == list(range(1, len(labels) + 1))
    # The second copy of a label is not the first one again.
    places = {(a['image_id'], a['category_id'], *a['bbox']) for a in labels}
    assert len(places) > 0.9 * len(labels)
