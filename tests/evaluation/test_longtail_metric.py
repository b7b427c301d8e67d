"""The metric against the lvis package, pycocotools, netcal, and cases worked out by hand."""

import copy
import json
import math

import lvis.eval
import numpy as np
import pytest
import torch
from lvis import LVIS, LVISEval, LVISResults
from mmdet.registry import METRICS as MMDET_METRICS
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from netcal.metrics import ECE
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric, encode_masks
from mmdet_softpl.registry import METRICS


def evaluate(samples, class_names, **kwargs):
    """Metrics without their prefix, and the metric."""
    metric = LongTailMetric(**kwargs)
    metric.dataset_meta = {'classes': class_names}
    metric.process({}, samples)
    values = metric.evaluate(len(samples))
    return {key.removeprefix('longtail/'): value for key, value in values.items()}, metric


def lvis_results(path, records, iou_type, max_dets=300):
    """AP of the lvis package, which needs the np.float that numpy 1.24 removed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(lvis.eval.np, 'float', float, raising=False)
    try:
        truth = LVIS(path)
        # The package's own limit is broken by ties only; -1 asks for none.
        found = LVISResults(truth, copy.deepcopy(records), max_dets=max_dets)
        evaluation = LVISEval(truth, found, iou_type)
        evaluation.run()
        return evaluation.get_results()
    finally:
        patch.undo()


@pytest.mark.parametrize('seed', [0, 1, 2])
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('max_dets', [300, 10])
def test_equals_the_lvis_package(data, write, seed, iou_type, max_dets):
    dataset = data.dataset(seed)
    samples = data.predictions(dataset, seed)
    path = write(dataset)
    ours, _ = evaluate(samples, data.class_names, ann_file=path, metric=iou_type, max_dets=max_dets)
    theirs = lvis_results(path, data.records(samples), iou_type, max_dets)
    for key in ('AP', 'AP50', 'AP75', 'APr', 'APc', 'APf'):
        assert ours[f'{iou_type}_{key}'] == pytest.approx(theirs[key], abs=1e-4), key
        assert 0.02 < theirs[key] < 0.98, 'a trivial value compares nothing'


@pytest.mark.parametrize('federated', [True, False])
@pytest.mark.parametrize(
    ('iou_type', 'inverted'), [('bbox', False), ('segm', False), ('segm', True)]
)
def test_empty_boxes_and_masks_count_as_each_package_counts_them(
    data, write, iou_type, inverted, federated, capsys
):
    # More than 255 judged detections, the most that pycocotools measures at once.
    dataset = data.dataset(federated=federated, num_images=40)
    samples = data.predictions(dataset)
    for sample in samples:
        found = sample['pred_instances']
        best = found['scores'].topk(6).indices
        if inverted:
            # A box of a negative area, as an external detector may give it, says nothing of a mask.
            found['bboxes'][best, 2] = found['bboxes'][best, 0] - 5
        else:
            found['bboxes'][best, 2] = found['bboxes'][best, 0]
            found['masks'][best] = False
    path = write(dataset)
    ours, _ = evaluate(samples, data.class_names, ann_file=path, metric=iou_type)
    records = data.records(samples)
    if iou_type == 'segm':
        # mmdet gives the packages masks without boxes: their areas are those of the masks.
        for record in records:
            del record['bbox']
    if federated:
        theirs = lvis_results(path, records, iou_type)['AP']
    else:
        truth = COCO(path)
        evaluation = COCOeval(truth, truth.loadRes(records), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        theirs = evaluation.stats[0]
    assert ours[f'{iou_type}_AP'] == pytest.approx(theirs, abs=1e-6)
    assert theirs > 0.02


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('crowd', [False, True])
def test_equals_pycocotools(data, write, iou_type, crowd, capsys):
    dataset = data.dataset(3, federated=False, crowd=crowd)
    samples = data.predictions(dataset, 3)
    path = write(dataset)
    ours, _ = evaluate(samples, data.class_names, ann_file=path, metric=iou_type)
    truth = COCO(path)
    evaluation = COCOeval(truth, truth.loadRes(data.records(samples)), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert [ours[f'{iou_type}_{k}'] for k in ('AP', 'AP50', 'AP75')] == pytest.approx(
        evaluation.stats[:3], abs=1e-4
    )
    assert f'{iou_type}_APr' not in ours, 'nothing says which classes are rare'


def test_both_iou_types_at_once_equal_each_alone(data, write):
    dataset = data.dataset(4)
    samples = data.predictions(dataset, 4)
    path = write(dataset)
    both, _ = evaluate(samples, data.class_names, ann_file=path)
    for iou_type in ('bbox', 'segm'):
        alone, _ = evaluate(samples, data.class_names, ann_file=path, metric=[iou_type])
        assert alone.items() <= both.items()
        assert both[f'{iou_type}_AP'] > 0


@pytest.mark.parametrize('federated', [True, False])
@pytest.mark.parametrize('pairs', [1, 30])
def test_classes_in_blocks_give_the_same(data, write, monkeypatch, federated, pairs):
    dataset = data.dataset(4, federated=federated)
    samples = data.predictions(dataset, 4)
    path = write(dataset)
    at_once, _ = evaluate(samples, data.class_names, ann_file=path)
    monkeypatch.setattr('mmdet_softpl.evaluation.average_precision.PAIRS_PER_BLOCK', pairs)
    in_blocks, _ = evaluate(samples, data.class_names, ann_file=path)
    assert in_blocks == pytest.approx(at_once, nan_ok=True)
    assert at_once['bbox_AP'] > 0


@pytest.mark.parametrize(('federated', 'limit'), [(True, 300), (False, 100)])
def test_the_default_cap_is_that_of_the_benchmark(data, write, federated, limit):
    # One image where the only right detection of a class comes after 250 (80) better scores.
    dataset = data.dataset(3, num_images=1, federated=federated)
    (image,) = dataset['images']
    dataset['annotations'] = dataset['annotations'][:1]
    (truth,) = dataset['annotations']
    if federated:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    x, y, w, h = truth['bbox']
    label = data.cat_ids.index(truth['category_id'])

    def value(rank, **kwargs):
        bboxes = torch.tensor([[60.0, 60, 61, 61]]).repeat(rank, 1)
        bboxes[-1] = torch.tensor([x, y, x + w, y + h], dtype=torch.float32)
        found = {
            'bboxes': bboxes,
            'scores': torch.linspace(0.9, 0.1, rank),
            'labels': torch.full((rank,), label),
        }
        sample = {'img_id': image['id'], 'pred_instances': found}
        path = write(dataset)
        ours, metric = evaluate([sample], data.class_names, ann_file=path, metric='bbox', **kwargs)
        assert metric.reliability[0].sum() == min(rank, kwargs.get('max_dets', limit))
        return ours['bbox_AP']

    assert value(limit) == pytest.approx(1 / limit, rel=1e-6)
    assert value(limit + 1) == 0
    assert value(limit + 1, max_dets=limit + 1) > 0


@pytest.mark.parametrize(('federated', 'counted'), [(True, [2, 1]), (False, [2, 2])])
def test_calibration_counts_what_ap_counts(data, write, federated, counted):
    """LVIS caps detections of an image, COCO those of an image and a class."""
    dataset = data.dataset(3, num_images=1, federated=federated)
    (image,) = dataset['images']
    if federated:
        image.update(neg_category_ids=list(data.cat_ids), not_exhaustive_category_ids=[])
    found = {
        'bboxes': torch.tensor([[60.0, 60, 61, 61]]).repeat(6, 1),
        # Class 0 has the best three.
        'scores': torch.tensor([0.9, 0.7, 0.6, 0.8, 0.5, 0.4]),
        'labels': torch.tensor([0, 0, 0, 1, 1, 1]),
    }
    sample = {'img_id': image['id'], 'pred_instances': found}
    max_dets = 3 if federated else 2
    _, metric = evaluate(
        [sample], data.class_names, ann_file=write(dataset), metric='bbox', max_dets=max_dets
    )
    assert metric.reliability[0].sum(1)[:2].tolist() == counted


def test_files_that_do_not_fit_are_named_before_an_evaluation(data, write, tmp_path):
    dataset = data.dataset(3, federated=False)
    labeled = copy.deepcopy(dataset)
    gone = labeled['categories'].pop(2)
    labeled['annotations'] = [a for a in labeled['annotations'] if a['category_id'] != gone['id']]
    path = tmp_path / 'labeled.json'
    path.write_text(json.dumps(labeled))
    metric = LongTailMetric(write(dataset), 'bbox', labeled_ann_file=str(path))
    with pytest.raises(AnnotationError, match=rf'{path}.*{gone["name"]}'):
        metric.check_classes(data.class_names)
    others = tuple(name for name in data.class_names if name != gone['name'])
    metric.check_classes(others)
    with pytest.raises(AnnotationError, match='another order'):
        metric.check_classes(others[::-1])
    with pytest.raises(AnnotationError, match="lacks 'yak'"):
        metric.check_classes((*others, 'yak'))


def test_ap_fixed_knows_no_cap_per_image(data, write):
    dataset = data.dataset(5)
    samples = data.predictions(dataset, 5)
    path = write(dataset)
    values, _ = evaluate(
        samples, data.class_names, ann_file=path, metric='segm', max_dets=5, ap_fixed=True
    )
    theirs = lvis_results(path, data.records(samples), 'segm', max_dets=-1)
    for key in ('AP', 'AP50', 'APr', 'APc', 'APf'):
        assert values[f'segm_{key}_fixed'] == pytest.approx(theirs[key], abs=1e-4)
    assert values['segm_AP_fixed'] > values['segm_AP'] + 0.01


def test_ap_fixed_keeps_the_best_of_each_class_over_the_set(data, write, monkeypatch):
    monkeypatch.setattr('mmdet_softpl.evaluation.longtail_metric.FIXED_DETECTIONS_PER_CLASS', 6)
    dataset = data.dataset(5)
    samples = data.predictions(dataset, 5)
    path = write(dataset)
    values, _ = evaluate(samples, data.class_names, ann_file=path, metric='bbox', ap_fixed=True)
    records = sorted(data.records(samples), key=lambda record: -record['score'])
    best = [
        record
        for cat_id in data.cat_ids
        for record in [r for r in records if r['category_id'] == cat_id][:6]
    ]
    theirs = lvis_results(path, best, 'bbox', max_dets=-1)
    assert values['bbox_AP_fixed'] == pytest.approx(theirs['AP'], abs=1e-4)
    assert values['bbox_AP_fixed'] < values['bbox_AP']


def tiny_dataset():
    def annotation(ann_id, img_id, cat_id, box):
        x, y, w, h = box
        return {
            'id': ann_id,
            'image_id': img_id,
            'category_id': cat_id,
            'bbox': box,
            'area': w * h,
            'iscrowd': 0,
            'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
        }

    return {
        'images': [{'id': i, 'file_name': f'{i}.png', 'height': 50, 'width': 50} for i in (1, 2)],
        'categories': [
            {'id': 7, 'name': 'bolt', 'frequency': 'f'},
            {'id': 3, 'name': 'rivet', 'frequency': 'r'},
        ],
        'annotations': [
            annotation(1, 1, 7, [0, 0, 20, 20]),
            annotation(2, 2, 7, [10, 10, 20, 20]),
            annotation(3, 2, 3, [30, 30, 10, 10]),
        ],
    }


def tiny_samples():
    """bolt: a hit of score 0.9, a miss of 0.8; rivet: a hit of 0.3 behind a miss of 0.6."""

    def sample(img_id, bboxes, scores, labels):
        bboxes = torch.tensor(bboxes, dtype=torch.float32).view(-1, 4)
        masks = torch.zeros(len(bboxes), 50, 50, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, bboxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        instances = InstanceData(
            bboxes=bboxes,
            scores=torch.tensor(scores),
            labels=torch.tensor(labels, dtype=torch.long),
            masks=masks,
        )
        return DetDataSample(metainfo={'img_id': img_id}, pred_instances=instances)

    return [
        sample(1, [[0, 0, 20, 20], [30, 0, 40, 10]], [0.9, 0.8], [0, 0]),
        sample(2, [[0, 30, 10, 40], [30, 30, 40, 40]], [0.6, 0.3], [1, 1]),
    ]


def test_by_hand_inside_mmengines_evaluator(write):
    path = write(tiny_dataset())
    evaluator = Evaluator(
        {'type': 'mmdet_softpl.LongTailMetric', 'ann_file': path, 'prefix': 'val'}
    )
    evaluator.dataset_meta = {'classes': ('bolt', 'rivet')}
    for sample in tiny_samples():
        evaluator.process([sample])
    values = evaluator.evaluate(2)
    # bolt: precision 1 up to recall 1/2 (51 of 101 levels), rivet: precision 1/2 throughout.
    for kind in ('bbox', 'segm'):
        assert values[f'val/{kind}_APf'] == pytest.approx(51 / 101)
        assert values[f'val/{kind}_APr'] == pytest.approx(0.5)
        assert values[f'val/{kind}_AP'] == pytest.approx((51 / 101 + 0.5) / 2)
        assert values[f'val/{kind}_AP50'] == values[f'val/{kind}_AP75']
        assert values[f'val/{kind}_APc'] == -1
    assert values['val/ece'] == pytest.approx((0.1 + 0.8 + 0.6 + 0.7) / 4, abs=1e-6)
    assert math.isnan(values['val/cc_ece_r']), 'two detections say nothing about a class'
    # The second evaluation starts afresh.
    for sample in tiny_samples():
        evaluator.process([sample])
    assert evaluator.evaluate(2)['val/bbox_AP'] == values['val/bbox_AP']


@pytest.mark.parametrize('federated', [False, True])
@pytest.mark.parametrize('first', [0, 1, -5, 10**6])
def test_ids_of_annotations_do_not_matter(write, federated, first):
    dataset = tiny_dataset()
    for image in dataset['images'] if federated else ():
        image.update(neg_category_ids=[3, 7], not_exhaustive_category_ids=[])
    samples, names = [sample.to_dict() for sample in tiny_samples()], ('bolt', 'rivet')
    expected, _ = evaluate(samples, names, ann_file=write(copy.deepcopy(dataset)))
    for number, annotation in enumerate(dataset['annotations'], first):
        annotation['id'] = number
    found, _ = evaluate(samples, names, ann_file=write(dataset))
    assert found['bbox_AP'] > 0
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize('federated', [False, True])
def test_ids_may_be_whole_floats(write, federated):
    """As tables of numbers write them."""
    dataset = tiny_dataset()
    for image in dataset['images'] if federated else ():
        image.update(neg_category_ids=[3, 7], not_exhaustive_category_ids=[7])
    samples, names = [sample.to_dict() for sample in tiny_samples()], ('bolt', 'rivet')
    expected, _ = evaluate(samples, names, ann_file=write(copy.deepcopy(dataset)))
    for item in (*dataset['images'], *dataset['categories'], *dataset['annotations']):
        item.update({k: float(item[k]) for k in ('id', 'image_id', 'category_id') if k in item})
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            if key in item:
                item[key] = [float(value) for value in item[key]]
    found, _ = evaluate(samples, names, ann_file=write(dataset))
    assert found['bbox_AP'] > 0
    assert found == pytest.approx(expected, nan_ok=True)


def test_registered_under_both_names():
    assert METRICS.get('LongTailMetric') is LongTailMetric
    assert MMDET_METRICS.get('LongTailMetric') is LongTailMetric
    assert MMDET_METRICS.get('mmdet_softpl.LongTailMetric') is LongTailMetric


@pytest.mark.parametrize('federated', [True, False])
def test_no_detection_gives_zero(data, write, federated):
    dataset = data.dataset(6, federated=federated)
    samples = data.predictions(dataset, per_image=0)
    values, metric = evaluate(
        samples, data.class_names, ann_file=write(dataset), metric=['bbox', 'segm'], ap_fixed=True
    )
    for key in ('bbox_AP', 'bbox_AP50', 'segm_AP', 'segm_AP75', 'segm_AP_fixed'):
        assert values[key] == 0
    assert math.isnan(values['ece'])
    assert metric.reliability.sum() == 0


def test_one_class(write):
    dataset = tiny_dataset()
    dataset['categories'] = dataset['categories'][:1]
    dataset['annotations'] = dataset['annotations'][:2]
    samples = [tiny_samples()[0].to_dict()]
    values, _ = evaluate(samples, ('bolt',), ann_file=write(dataset))
    assert values['bbox_AP'] == values['bbox_APf'] == pytest.approx(51 / 101)
    assert values['bbox_APr'] == -1


def test_groups_from_the_labelled_file(data, write):
    dataset = data.dataset(7, federated=False)
    samples = data.predictions(dataset, 7)
    path = write(dataset)
    letters = data.dataset(7)
    lettered = write({**dataset, 'categories': letters['categories']}, 'lettered.json')
    given, metric = evaluate(
        samples, data.class_names, ann_file=path, labeled_ann_file=lettered, metric='bbox'
    )
    own, _ = evaluate(samples, data.class_names, ann_file=lettered, metric='bbox')
    assert given == pytest.approx(own, nan_ok=True)
    assert metric.groups.tolist() == [0, 1, 2] * 3
    assert given['bbox_APr'] > 0
    # Counted: 12 images or fewer hold any class, so none is frequent.
    counted, metric = evaluate(
        samples, data.class_names, ann_file=path, labeled_ann_file=path, metric='bbox'
    )
    images = [
        len({a['image_id'] for a in dataset['annotations'] if a['category_id'] == cat_id})
        for cat_id in data.cat_ids
    ]
    assert metric.groups.tolist() == [int(count > 10) for count in images]
    assert counted['bbox_APf'] == -1


def test_ece_equals_netcal(data, write):
    dataset = data.dataset(8, num_images=20, federated=False)
    samples = data.predictions(dataset, 8)
    values, metric = evaluate(samples, data.class_names, ann_file=write(dataset), metric='bbox')

    scores, correct, labels = [], [], []
    for sample in samples:
        found = sample['pred_instances']
        objects = [a for a in dataset['annotations'] if a['image_id'] == sample['img_id']]
        order = np.argsort(-found['scores'].numpy(), kind='stable')
        hits = greedy_by_hand(found, objects, order, data.cat_ids)
        scores += found['scores'][order].tolist()
        labels += found['labels'][order].tolist()
        correct += hits
    scores, correct, labels = np.array(scores), np.array(correct), np.array(labels)
    ece = ECE(bins=15)
    assert values['ece'] == pytest.approx(ece.measure(scores, correct), abs=1e-5)
    per_class = [
        ece.measure(scores[labels == c], correct[labels == c])
        for c in range(9)
        if (labels == c).sum() >= 10
    ]
    assert len(per_class) > 5
    assert values['cc_ece'] == pytest.approx(np.mean(per_class), abs=1e-5)
    assert metric.reliability[0].sum() == len(scores)


def greedy_by_hand(found, objects, order, cat_ids):
    """The matching in plain loops: 0 or 1 for each detection, best score first."""
    taken, hits = set(), []
    for i in order:
        x1, y1, x2, y2 = found['bboxes'][i].tolist()
        best, best_iou = None, 0.5
        for j, annotation in enumerate(objects):
            if j in taken or cat_ids[int(found['labels'][i])] != annotation['category_id']:
                continue
            x, y, w, h = annotation['bbox']
            inter = max(0, min(x2, x + w) - max(x1, x)) * max(0, min(y2, y + h) - max(y1, y))
            iou = inter / ((x2 - x1) * (y2 - y1) + w * h - inter)
            if iou >= best_iou:
                best, best_iou = j, iou
        hits.append(int(best is not None))
        if best is not None:
            taken.add(best)
    return hits


def test_calibration_counts_only_what_lvis_rules_can_judge(write):
    dataset = tiny_dataset()
    first, second = dataset['images']
    # Image 1: rivets unknown; image 2: rivets not exhaustive.
    first |= {'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    second |= {'neg_category_ids': [], 'not_exhaustive_category_ids': [3]}
    samples = [sample.to_dict() for sample in tiny_samples()]
    samples[0]['pred_instances']['labels'][1] = 1
    _, metric = evaluate(samples, ('bolt', 'rivet'), ann_file=write(dataset))
    counts, correct, confidence = metric.reliability.sum(dim=2)
    # Left out: the rivet of image 1 (unknown there), the false rivet of image 2.
    assert counts.tolist() == [1, 1]
    assert correct.tolist() == [1, 1]
    assert confidence.tolist() == pytest.approx([0.9, 0.3])


def test_low_scores_are_kept_out_of_the_calibration(data, write):
    dataset = data.dataset(9)
    path = write(dataset)
    samples = data.predictions(dataset, 9)
    _, high = evaluate(samples, data.class_names, ann_file=path, calibration_score_thr=0.5)
    _, every = evaluate(samples, data.class_names, ann_file=path, calibration_score_thr=0.0)
    assert high.reliability[0, :, :7].sum() == 0
    assert 0 < high.reliability[0].sum() < every.reliability[0].sum()
    values, metric = evaluate(samples, data.class_names, ann_file=path, calibration=False)
    assert not any('ece' in key for key in values)
    assert metric.reliability is None


def test_masks_as_tensor_array_and_rle_are_one(data, write):
    masks = data.predictions(data.dataset())[0]['pred_instances']['masks']
    rle = encode_masks(masks)
    assert len(rle) == len(masks)
    assert list(encode_masks(masks.numpy())) == list(rle) == list(encode_masks(list(rle)))
    coco = COCO()
    coco.imgs = {1: {'height': 64, 'width': 64}}
    for mask, code in zip(masks, rle, strict=True):
        decoded = coco.annToMask({'image_id': 1, 'segmentation': code})
        assert np.array_equal(decoded, mask.numpy())
    wide = torch.zeros(2, 3, 7, dtype=torch.bool)
    wide[1, 0, 6] = True
    assert [code['size'] for code in encode_masks(wide)] == [[3, 7], [3, 7]]
    assert encode_masks(masks[:0]).shape == encode_masks([]).shape == (0,)


def test_mask_scores_rank_the_masks_only(data, write):
    dataset = data.dataset(10)
    path = write(dataset)
    samples = data.predictions(dataset, 10)
    plain, _ = evaluate(samples, data.class_names, ann_file=path)
    for sample in samples:
        found = sample['pred_instances']
        found['mask_scores'] = 1 - found['scores']
    scored, _ = evaluate(samples, data.class_names, ann_file=path)
    assert scored['bbox_AP'] == plain['bbox_AP']
    for sample in samples:
        sample['pred_instances']['scores'] = sample['pred_instances']['mask_scores']
    theirs = lvis_results(path, data.records(samples), 'segm')
    assert scored['segm_AP'] == pytest.approx(theirs['AP'], abs=1e-4)
    assert scored['segm_AP'] != plain['segm_AP']


def test_results_are_compact_and_one_per_image(data, write):
    dataset = data.dataset()
    metric = LongTailMetric(write(dataset))
    metric.process({}, data.predictions(dataset))
    assert len(metric.results) == len(dataset['images'])
    for result in metric.results:
        assert {type(result[key]) for key in ('bboxes', 'scores', 'labels')} == {np.ndarray}
        assert all(isinstance(mask['counts'], bytes) for mask in result['masks'])


def test_other_class_names_are_an_error_at_the_first_evaluation(data, write):
    dataset = data.dataset()
    samples = data.predictions(dataset)
    names = ('person', *data.class_names[1:])
    with pytest.raises(AnnotationError, match=r"annotations\.json.*'person'.*'class0'.*metainfo"):
        evaluate(samples, names, ann_file=write(dataset))


def test_another_order_of_the_classes_is_an_error(data, write):
    dataset = data.dataset()
    names = data.class_names[::-1]
    with pytest.raises(AnnotationError, match=r"label 0 is 'class8'.*'class0' in the file"):
        evaluate(data.predictions(dataset), names, ann_file=write(dataset))


def test_categories_that_the_model_does_not_know_are_left_out(data, write):
    dataset = data.dataset(11, federated=False)
    samples = data.predictions(dataset, 11)
    names = data.class_names[:5]
    for sample in samples:
        found = sample['pred_instances']
        known = found['labels'] < 5
        sample['pred_instances'] = {key: value[known] for key, value in found.items()}
    some, _ = evaluate(samples, names, ann_file=write(dataset))
    smaller = copy.deepcopy(dataset)
    smaller['categories'] = dataset['categories'][:5]
    smaller['annotations'] = [
        a for a in dataset['annotations'] if a['category_id'] in data.cat_ids[:5]
    ]
    alone, _ = evaluate(samples, names, ann_file=write(smaller, 'smaller.json'))
    assert some == pytest.approx(alone, nan_ok=True)
    assert some['bbox_AP'] > 0


def test_missing_class_names(data, write):
    metric = LongTailMetric(write(data.dataset()))
    metric.process({}, data.predictions(data.dataset()))
    with pytest.raises(ValueError, match='dataset_meta has no classes'):
        metric.evaluate(12)


def test_unknown_image(data, write):
    dataset = data.dataset()
    samples = data.predictions(dataset)
    samples[3]['img_id'] = 999
    with pytest.raises(AnnotationError, match=r'annotations\.json: images has no id 999'):
        evaluate(samples, data.class_names, ann_file=write(dataset))


def test_segm_without_masks(data, write):
    dataset = data.dataset()
    samples = data.predictions(dataset)
    del samples[0]['pred_instances']['masks']
    with pytest.raises(KeyError, match="Set metric='bbox'"):
        evaluate(samples, data.class_names, ann_file=write(dataset))
    evaluate(samples[:1], data.class_names, ann_file=write(dataset), metric='bbox')


def test_labelled_file_without_a_class(data, write):
    dataset = data.dataset(federated=False)
    labelled = copy.deepcopy(dataset)
    labelled['categories'][4]['name'] = 'other'
    with pytest.raises(AnnotationError, match=r"labelled\.json': categories lacks 'class4'"):
        evaluate(
            data.predictions(dataset),
            data.class_names,
            ann_file=write(dataset),
            labeled_ann_file=write(labelled, 'labelled.json'),
        )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'metric': 'proposal'}, "unknown metric='proposal'; known are 'bbox', 'segm'"),
        ({'metric': ['bbox', 'keypoints']}, "unknown metric='keypoints'"),
        ({'max_dets': 0}, r'max_dets must lie in \[1, inf'),
        ({'calibration_score_thr': 1.5}, r'calibration_score_thr must lie in \[0, 1\], got 1.5'),
        ({'ann_file': 'nowhere.json'}, r'nowhere\.json: the annotation file does not exist'),
        ({'labeled_ann_file': 'nowhere.json'}, r'nowhere\.json'),
    ],
)
def test_bad_arguments(data, write, arguments, message):
    with pytest.raises(ValueError, match=message):
        LongTailMetric(**({'ann_file': write(data.dataset())} | arguments))


def test_ids_that_are_words_stop_it_before_the_training(data, write):
    dataset = data.dataset()
    for image in dataset['images']:
        image['id'] = f'IMG_{image["id"]}'
    with pytest.raises(AnnotationError, match=r"images\[0\]: id='IMG_1'.*number them anew"):
        LongTailMetric(write(dataset))


@pytest.mark.parametrize('metric', ['segm', ['bbox', 'segm']])
def test_an_object_without_a_mask_stops_it_before_the_training(data, write, metric):
    dataset = data.dataset()
    del dataset['annotations'][3]['segmentation']
    dataset['annotations'][5]['segmentation'] = None
    # An empty one is a mask that nothing matches.
    dataset['annotations'][7]['segmentation'] = []
    path = write(dataset)
    match = r"annotations\.json.*\n.*\(2\): annotation id=4; annotation id=6\..*metric='bbox'"
    with pytest.raises(AnnotationError, match=match):
        LongTailMetric(path, metric)
    LongTailMetric(path, 'bbox')


def test_truncated_file(data, tmp_path):
    path = tmp_path / 'cut.json'
    path.write_text(json.dumps(data.dataset())[:200])
    with pytest.raises(AnnotationError, match=r'cut\.json'):
        LongTailMetric(str(path))


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_keeps_the_ap_of_each_class(data, write, iou_type, capsys):
    dataset = data.dataset(3, federated=False)
    samples = data.predictions(dataset, 3)
    path = write(dataset)
    values, metric = evaluate(samples, data.class_names, ann_file=path, metric=iou_type)
    (evaluation,) = metric.evaluations
    ours = evaluation['class_AP'][iou_type]
    truth = COCO(path)
    found = truth.loadRes(data.records(samples))
    for c, name in enumerate(data.class_names):
        (category,) = truth.getCatIds(catNms=[name])
        theirs = COCOeval(truth, found, iou_type)
        theirs.params.catIds = [category]
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
        assert ours[c] == pytest.approx(theirs.stats[0], abs=1e-4), name
    assert (ours == -1).any() and (ours > 0.02).any()
    assert ours[ours > -1].mean() == pytest.approx(values[f'{iou_type}_AP'])
    assert torch.equal(evaluation['reliability'], metric.reliability)


def test_the_order_of_the_images_does_not_matter(data, write):
    """Several ranks take turns with the images, and a loader may go through them in any order."""
    dataset = data.dataset(5)
    samples, path = data.predictions(dataset, 5), write(dataset)
    expected, _ = evaluate(samples, data.class_names, ann_file=path)
    found, _ = evaluate(samples[::-1], data.class_names, ann_file=path)
    assert found['ece'] > 0
    assert found == pytest.approx(expected, nan_ok=True)
