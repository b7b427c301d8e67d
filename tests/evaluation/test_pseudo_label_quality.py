"""Precision and recall of pseudo-labels, by hand and by loops."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.evaluation import pseudo_label_quality

NAMES = ('bolt', 'rivet', 'nut')


@pytest.fixture
def hidden(write):
    """Two images: two bolts (frequent) and a rivet (rare); a nut (common) does not occur."""
    return write(
        {
            'images': [{'id': i, 'height': 50, 'width': 50} for i in (1, 2)],
            'categories': [
                {'id': 4, 'name': 'bolt', 'frequency': 'f'},
                {'id': 1, 'name': 'rivet', 'frequency': 'r'},
                {'id': 9, 'name': 'nut', 'frequency': 'c'},
            ],
            'annotations': [
                {'id': 1, 'image_id': 1, 'category_id': 4, 'bbox': [0, 0, 20, 20]},
                {'id': 2, 'image_id': 2, 'category_id': 4, 'bbox': [0, 0, 20, 20]},
                {'id': 3, 'image_id': 2, 'category_id': 1, 'bbox': [30, 30, 10, 10]},
            ],
        }
    )


def pseudo(img_id, bboxes, labels, kept, scores=None):
    return {
        'img_id': img_id,
        'bboxes': bboxes,
        'labels': labels,
        'scores': scores or [0.5] * len(labels),
        'kept': kept,
    }


def test_by_hand(hidden):
    quality = pseudo_label_quality(
        [
            # A hit, a miss, and a hit that was dropped.
            pseudo(1, [[0, 0, 20, 20], [30, 0, 40, 10]], [0, 0], [True, True]),
            pseudo(2, [[0, 0, 20, 20], [30, 30, 40, 40]], [0, 1], [False, True]),
        ],
        hidden,
        NAMES,
    )
    assert quality['pseudo_precision'] == pytest.approx(2 / 3)
    assert quality['pseudo_recall'] == pytest.approx(2 / 3)
    assert (quality['pseudo_count'], quality['pseudo_objects']) == (3, 3)
    assert quality['frequent_pseudo_precision'] == quality['frequent_pseudo_recall'] == 0.5
    assert quality['rare_pseudo_precision'] == quality['rare_pseudo_recall'] == 1
    assert quality['common_pseudo_count'] == 0
    assert math.isnan(quality['common_pseudo_recall'])
    assert quality['never_labelled'] == ['nut']
    assert quality['common_pseudo_never_labelled'] == 1
    assert quality['pseudo_never_labelled'] == pytest.approx(1 / 3)
    assert quality['per_class']['bolt'] == {
        'precision': 0.5,
        'recall': 0.5,
        'count': 2,
        'judged': 2,
        'objects': 2,
    }


def test_recall_counts_only_the_images_that_were_labelled(hidden):
    quality = pseudo_label_quality([pseudo(1, [[0, 0, 20, 20]], [0], [True])], hidden, NAMES)
    assert quality['pseudo_recall'] == quality['pseudo_precision'] == 1


def test_two_labels_on_one_object_are_one_hit(hidden):
    boxes = torch.tensor([[0.0, 0, 20, 20], [0.0, 0, 20, 19]])
    image = {'img_id': 1, 'bboxes': boxes, 'labels': torch.tensor([0, 0])}
    quality = pseudo_label_quality([image | {'scores': torch.ones(2)}], hidden, NAMES)
    assert quality['pseudo_precision'] == 0.5
    assert quality['pseudo_recall'] == 1


@pytest.mark.parametrize('images', [[], [pseudo(1, [], [], [])]])
def test_no_pseudo_label(hidden, images):
    quality = pseudo_label_quality(images, hidden, NAMES)
    assert math.isnan(quality['pseudo_precision'])
    assert quality['pseudo_count'] == 0
    assert quality['never_labelled'] == list(NAMES)
    assert math.isnan(quality['pseudo_recall']) or quality['pseudo_recall'] == 0


def test_equals_loops_on_random_data(data, write):
    dataset = data.dataset(1, federated=False)
    samples = data.predictions(dataset, 1, per_image=12)
    images = [{'img_id': s['img_id'], **s['pred_instances']} for s in samples]
    for image in images:
        image['kept'] = image['scores'] > 0.4
    quality = pseudo_label_quality(images, write(dataset), data.class_names)
    hits = np.zeros(9)
    for image in images:
        objects = [a for a in dataset['annotations'] if a['image_id'] == image['img_id']]
        taken = set()
        for i in np.argsort(-image['scores'].numpy(), kind='stable'):
            if not image['kept'][i]:
                continue
            x1, y1, x2, y2 = image['bboxes'][i].tolist()
            best, best_iou = None, 0.5
            for j, a in enumerate(objects):
                x, y, w, h = a['bbox']
                inter = max(0, min(x2, x + w) - max(x1, x)) * max(0, min(y2, y + h) - max(y1, y))
                iou = inter / ((x2 - x1) * (y2 - y1) + w * h - inter)
                same = data.cat_ids[int(image['labels'][i])] == a['category_id']
                if same and j not in taken and iou >= best_iou:
                    best, best_iou = j, iou
            if best is not None:
                taken.add(best)
                hits[int(image['labels'][i])] += 1
    kept = sum(int(image['kept'].sum()) for image in images)
    assert quality['pseudo_precision'] == pytest.approx(hits.sum() / kept)
    assert quality['pseudo_recall'] == pytest.approx(hits.sum() / len(dataset['annotations']))
    for c, name in enumerate(data.class_names):
        per_class = quality['per_class'][name]
        if per_class['count']:
            assert per_class['precision'] == pytest.approx(hits[c] / per_class['count'])
    assert not any('rare' in key for key in quality), 'no group is known'
    grouped = pseudo_label_quality(images, write(dataset), data.class_names, write(dataset))
    assert grouped['pseudo_recall'] == quality['pseudo_recall']
    assert grouped['rare_pseudo_count'] + grouped['common_pseudo_count'] == kept


def test_unknown_things_of_a_federated_file_are_not_judged(data, write):
    dataset = data.dataset(2)
    for image in dataset['images']:
        image['neg_category_ids'] = []
        image['not_exhaustive_category_ids'] = list(data.cat_ids)
    samples = data.predictions(dataset, 2)
    images = [{'img_id': s['img_id'], **s['pred_instances']} for s in samples]
    quality = pseudo_label_quality(images, write(dataset), data.class_names)
    assert quality['pseudo_precision'] == 1, 'only hits can be judged'
    assert quality['pseudo_count'] == 25 * 12


def test_bad_input(hidden, write):
    good = pseudo(1, [[0, 0, 20, 20]], [0], [True])
    with pytest.raises(ValueError, match=r'image 1: labels must lie in \[0, 3\), got 3 to 3'):
        pseudo_label_quality([good | {'labels': [3]}], hidden, NAMES)
    with pytest.raises(AnnotationError, match=r'images has no id 7'):
        pseudo_label_quality([good | {'img_id': 7}], hidden, NAMES)
    with pytest.raises(AnnotationError, match="lacks 'screw'"):
        pseudo_label_quality([good], hidden, ('bolt', 'screw'))
    with pytest.raises(ValueError, match='iou_thr'):
        pseudo_label_quality([good], hidden, NAMES, iou_thr=0)


def test_the_unlabelled_file_instead_of_the_hidden_one(data, write):
    dataset = data.dataset()
    del dataset['annotations']
    with pytest.raises(AnnotationError, match=r'annotations\.json: key `annotations` is missing'):
        pseudo_label_quality([], write(dataset), data.class_names)


SAID = ('bolt', 'nut', 'screw')
HIT, MISS = [0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 60.0, 60.0]


@pytest.mark.parametrize('federated', [True, False])
def test_judged_labels_of_a_federated_file(tmp_path: Path, federated: bool) -> None:
    """Image 1 has a bolt and no nut; of screws it says nothing."""
    said = dict(neg_category_ids=[2], not_exhaustive_category_ids=[]) if federated else {}
    dataset = dict(
        images=[dict(id=1, width=64, height=64, file_name='1.jpg', **said)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=HIT, area=400.0, iscrowd=0)],
        categories=[
            dict(id=i, name=name, frequency=f)
            for i, name, f in zip((1, 2, 3), SAID, 'fcr', strict=True)
        ],
    )
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(dataset))
    rows = [(HIT, 0, True), (MISS, 0, True), (MISS, 1, True), (HIT, 2, True), (MISS, 2, False)]
    boxes, labels, kept = zip(*rows, strict=True)
    image = dict(
        img_id=1,
        bboxes=torch.tensor(boxes),
        labels=torch.tensor(labels),
        scores=torch.linspace(0.9, 0.5, 5),
        kept=torch.tensor(kept),
    )
    empty = {key: value if key == 'img_id' else value[:0] for key, value in image.items()}
    full, nothing = (pseudo_label_quality([seen], str(path), SAID) for seen in (image, empty))
    screws = 0 if federated else 1
    assert [full['per_class'][name]['judged'] for name in SAID] == [2, 1, screws]
    assert full['pseudo_judged'] == 3 + screws and full['pseudo_count'] == 4
    groups = [full[f'{name}_pseudo_judged'] for name in ('rare', 'common', 'frequent')]
    assert groups == [screws, 1, 2]
    # One is right.
    assert full['pseudo_precision'] == pytest.approx(1 / full['pseudo_judged'])
    assert nothing['pseudo_judged'] == nothing['rare_pseudo_judged'] == 0
