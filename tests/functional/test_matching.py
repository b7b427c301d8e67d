"""Matching against pycocotools' own matcher, a slow loop, and cases worked out by hand."""

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_softpl.functional.matching import judge_matches, match_indices


def match_detections(*args, ignore=None, **kwargs):
    """Whether each detection finds an object that is not to be ignored, (N,) bool."""
    matched = match_indices(*args, ignore=ignore, **kwargs)
    correct = matched >= 0
    if ignore is None or len(ignore) == 0:
        return correct
    return correct & ~ignore.bool()[matched.clamp(min=0)]


def random_image(seed, num_dets=40, num_gts=15, num_classes=3):
    """Ground truth and jittered copies of it, so that several detections want the same box."""
    gen = torch.Generator().manual_seed(seed)
    top_left = torch.rand(num_gts, 2, generator=gen) * 60
    gt_bboxes = torch.cat([top_left, top_left + 10 + torch.rand(num_gts, 2, generator=gen) * 30], 1)
    source = torch.randint(0, num_gts, (num_dets,), generator=gen)
    bboxes = gt_bboxes[source] + torch.randn(num_dets, 4, generator=gen) * 3
    return {
        'bboxes': bboxes,
        'scores': torch.rand(num_dets, generator=gen),
        'labels': torch.randint(0, num_classes, (num_dets,), generator=gen),
        'gt_bboxes': gt_bboxes,
        'gt_labels': torch.randint(0, num_classes, (num_gts,), generator=gen),
    }


def pycocotools_match(bboxes, scores, labels, gt_bboxes, gt_labels, iou_thr, crowd):
    """matched, ignored: (N,) bool each, from COCOeval.evaluateImg."""

    def xywh(box):
        x1, y1, x2, y2 = (float(v) for v in box)
        return [x1, y1, x2 - x1, y2 - y1]

    annotations = [
        {
            'id': i + 1,
            'image_id': 1,
            'category_id': int(label) + 1,
            'bbox': xywh(box),
            'area': 400.0,
            'iscrowd': int(crowd[i]),
        }
        for i, (box, label) in enumerate(zip(gt_bboxes, gt_labels, strict=True))
    ]
    coco = COCO()
    coco.dataset = {
        'images': [{'id': 1, 'height': 200, 'width': 200}],
        'annotations': annotations,
        'categories': [{'id': c + 1, 'name': str(c)} for c in range(10)],
    }
    coco.createIndex()
    results = [
        {'image_id': 1, 'category_id': int(c) + 1, 'bbox': xywh(b), 'score': float(s)}
        for b, s, c in zip(bboxes, scores, labels, strict=True)
    ]
    evaluator = COCOeval(coco, coco.loadRes(results), 'bbox')
    evaluator.params.iouThrs = np.array([iou_thr])
    evaluator.params.maxDets = [1000]
    evaluator.params.areaRng = [[0, 1e10]]
    evaluator.params.areaRngLbl = ['all']
    evaluator.evaluate()
    matched = np.zeros(len(results), dtype=bool)
    ignored = np.zeros(len(results), dtype=bool)
    for image in evaluator.evalImgs:
        if image is not None:
            rows = np.array(image['dtIds'], dtype=int) - 1
            matched[rows] = image['dtMatches'][0] > 0
            ignored[rows] = image['dtIgnore'][0]
    return torch.from_numpy(matched), torch.from_numpy(ignored)


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('iou_thr', [0.3, 0.5, 0.75])
def test_equals_pycocotools(seed, iou_thr, capsys):
    image = random_image(seed)
    crowd = torch.zeros(15, dtype=torch.bool)
    matched, _ = pycocotools_match(**image, iou_thr=iou_thr, crowd=crowd)
    ours = match_detections(**image, iou_thr=iou_thr)
    assert torch.equal(ours, matched)
    assert 0 < ours.sum() < len(ours)


@pytest.mark.parametrize('seed', range(8))
def test_crowds_equal_pycocotools(seed, capsys):
    image = random_image(seed, num_dets=60)
    crowd = torch.zeros(15, dtype=torch.bool)
    crowd[:6] = True
    matched, ignored = pycocotools_match(**image, iou_thr=0.5, crowd=crowd)
    indices = match_indices(**image, ignore=crowd)
    ours_ignored = (indices >= 0) & crowd[indices.clamp(min=0)]
    assert torch.equal(ours_ignored, ignored)
    assert ignored.any()
    assert torch.equal(match_detections(**image, ignore=crowd), matched & ~ignored)


@pytest.mark.parametrize('seed', range(5))
def test_any_class_equals_one_class(seed, capsys):
    image = random_image(seed)
    one_class = image | {
        'labels': torch.zeros_like(image['labels']),
        'gt_labels': torch.zeros_like(image['gt_labels']),
    }
    matched, _ = pycocotools_match(**one_class, iou_thr=0.5, crowd=torch.zeros(15))
    ours = match_indices(image['bboxes'], image['scores'], None, image['gt_bboxes'], None) >= 0
    assert torch.equal(ours, matched)
    assert ours.sum() > match_detections(**image).sum()


def test_the_better_score_takes_the_box_and_the_other_takes_the_next():
    gt_bboxes = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10]])
    bboxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [0.0, 0, 10, 10]])
    zeros = torch.zeros(3, dtype=torch.long)
    matched = match_indices(
        bboxes, torch.tensor([0.2, 0.9, 0.5]), zeros, gt_bboxes, zeros[:2], iou_thr=0.5
    )
    # IoU with the second box is 80 / 120.
    assert matched.tolist() == [-1, 0, 1]


def test_equal_scores_keep_the_order_of_the_rows():
    box = torch.tensor([[0.0, 0, 10, 10]])
    zeros = torch.zeros(2, dtype=torch.long)
    correct = match_detections(box.repeat(2, 1), torch.ones(2), zeros, box, zeros[:1])
    assert correct.tolist() == [True, False]


def test_the_threshold_is_inclusive_and_a_wrong_class_never_matches():
    gt_bboxes = torch.tensor([[0.0, 0, 10, 10]])
    half = torch.tensor([[0.0, 0, 10, 5]])
    label, other = torch.tensor([1]), torch.tensor([0])
    assert match_detections(half, torch.ones(1), label, gt_bboxes, label).item()
    assert not match_detections(half, torch.ones(1), other, gt_bboxes, label).item()
    assert match_indices(half, torch.ones(1), None, gt_bboxes, None).item() >= 0


@pytest.mark.parametrize(('num_dets', 'num_gts'), [(0, 0), (0, 3), (4, 0)])
def test_empty(num_dets, num_gts):
    correct = match_detections(
        torch.rand(num_dets, 4),
        torch.rand(num_dets),
        torch.zeros(num_dets, dtype=torch.long),
        torch.rand(num_gts, 4),
        torch.zeros(num_gts, dtype=torch.long),
        ignore=torch.zeros(num_gts, dtype=torch.bool),
    )
    assert correct.dtype == torch.bool
    assert correct.tolist() == [False] * num_dets


def test_boxes_without_area_match_nothing_and_give_no_nan():
    point = torch.tensor([[5.0, 5, 5, 5]])
    zero = torch.zeros(1, dtype=torch.long)
    for ignore in (None, torch.tensor([True])):
        assert match_indices(point, torch.ones(1), zero, point, zero, ignore=ignore).item() == -1


def test_half_precision_boxes_are_measured_in_single_precision():
    # 1100 * 1000 overflows float16.
    box = torch.tensor([[0.0, 0, 1000, 1100]], dtype=torch.float16)
    zero = torch.zeros(1, dtype=torch.long)
    assert match_detections(box, torch.ones(1).half(), zero, box, zero).item()


@pytest.mark.parametrize('iou_thr', [0.0, -0.1, 1.01])
def test_bad_threshold(iou_thr):
    image = random_image(0)
    with pytest.raises(ValueError, match=r'iou_thr must be in \(0, 1\]'):
        match_detections(**image, iou_thr=iou_thr)


def test_labels_come_in_pairs():
    image = random_image(0)
    with pytest.raises(ValueError, match='labels and gt_labels together'):
        match_indices(**(image | {'gt_labels': None}))


def test_a_crowd_takes_any_number_and_is_measured_by_the_detection_area():
    crowd = torch.tensor([[0.0, 0, 100, 100]])
    small = torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 30, 30], [95.0, 0, 115, 10]])
    zeros = torch.zeros(3, dtype=torch.long)
    matched = match_indices(
        small, torch.rand(3), zeros, crowd, zeros[:1], ignore=torch.tensor([True])
    )
    assert matched.tolist() == [0, 0, -1]


@pytest.mark.parametrize('num_dets, num_gts', [(40, 15), (0, 3), (3, 0), (0, 0)])
def test_what_is_judged_by_the_rules_in_words(num_dets, num_gts):
    gen = torch.Generator().manual_seed(num_dets + num_gts)
    matched = torch.randint(-1, num_gts, (num_dets,), generator=gen)
    crowd, spoken_of, loose = (
        torch.rand(size, generator=gen) < 0.4 for size in (num_gts, num_dets, num_dets)
    )
    judged, correct = judge_matches(matched, crowd, spoken_of, loose)
    for i, gt in enumerate(matched.tolist()):
        takes_object = gt >= 0 and not crowd[gt]
        expected = bool(spoken_of[i])
        if gt >= 0 and crowd[gt]:
            expected = False
        if loose[i] and not takes_object:
            expected = False
        assert judged[i].item() == expected
        assert correct[i].item() == (expected and takes_object)
    assert judged.shape == correct.shape == (num_dets,)
