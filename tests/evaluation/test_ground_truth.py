"""Federated rules, frequency groups."""

import copy
import time

import pytest
import torch

from mmdet_softpl.evaluation.ground_truth import (
    GroundTruth,
    coco_api,
    frequency_letters,
    groups_of_classes,
    judge_detections,
)

NAMES = ('a', 'b', 'c')


def truth_of(annotations, federated=True):
    image = {'id': 5, 'height': 40, 'width': 40}
    if federated:
        image |= {'neg_category_ids': [20], 'not_exhaustive_category_ids': [10]}
    dataset = {
        'images': [image],
        'annotations': annotations,
        'categories': [{'id': 10 * (c + 1), 'name': name} for c, name in enumerate(NAMES)],
    }
    return GroundTruth(dataset, NAMES, 'x.json')


def box(cat_id, bbox, crowd=0):
    return {'image_id': 5, 'category_id': cat_id, 'bbox': bbox, 'iscrowd': crowd}


def test_what_a_federated_image_can_judge():
    truth = truth_of([box(10, [0, 0, 10, 10])]).image(5)
    assert truth.bboxes.tolist() == [[0, 0, 10, 10]]
    assert truth.judged.tolist() == [True, True, False]
    assert truth.not_exhaustive.tolist() == [True, False, False]
    bboxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(4, 1)
    judged, correct = judge_detections(
        truth, bboxes, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 1, 2])
    )
    # Found; second on the same object, but 'a' is not exhaustive; 'b' is absent; 'c' unknown.
    assert judged.tolist() == [True, False, True, False]
    assert correct.tolist() == [True, False, False, False]


def test_many_classes_take_no_square_of_time():
    names = [f'class {i}' for i in range(13_204)]
    categories = [{'id': i, 'name': name} for i, name in enumerate(names)]
    start = time.process_time()
    truth = GroundTruth(dict(images=[], annotations=[], categories=categories), names, 'x.json')
    assert time.process_time() - start < 0.5
    assert truth.cat_ids == list(range(13_204))


def test_crowds_are_not_judged_in_a_plain_file():
    truth = truth_of([box(30, [0, 0, 30, 30], crowd=1), box(30, [0, 0, 6, 6])], federated=False)
    image = truth.image(5)
    assert not truth.federated
    assert image.judged.all()
    judged, correct = judge_detections(
        image,
        torch.tensor([[0.0, 0, 6, 6], [8, 8, 14, 14], [35, 35, 40, 40]]),
        torch.tensor([0.1, 0.9, 0.5]),
        torch.tensor([2, 2, 2]),
    )
    assert judged.tolist() == [True, False, True]
    assert correct.tolist() == [True, False, False]


def test_an_image_without_annotations_and_no_detection():
    image = truth_of([], federated=False).image(5)
    assert image.bboxes.shape == (0, 4)
    judged, correct = judge_detections(
        image, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    )
    assert judged.shape == correct.shape == (0,)
    judged, correct = judge_detections(image, torch.rand(2, 4), torch.rand(2), torch.tensor([0, 1]))
    assert judged.tolist() == [True, True]
    assert correct.tolist() == [False, False]


def test_groups_go_by_the_name_and_the_files_own_letters_come_first(data, write):
    dataset = data.dataset()
    own = groups_of_classes(dataset, data.class_names, labeled=None)
    assert own.tolist() == [0, 1, 2] * 3
    assert groups_of_classes(dataset, ('class4', 'class0'), None).tolist() == [1, 0]
    labeled = dict.fromkeys(data.class_names, 'f')
    assert groups_of_classes(dataset, data.class_names, labeled).tolist() == own.tolist()
    plain = data.dataset(federated=False)
    assert groups_of_classes(plain, data.class_names, None) is None
    assert groups_of_classes(plain, data.class_names, labeled).tolist() == [2] * 9
    assert frequency_letters(write(dataset)) == dict(zip(data.class_names, 'rcf' * 3, strict=True))


def test_the_index_leaves_its_input_alone(data):
    dataset = data.dataset(federated=False)
    for category in dataset['categories']:
        category.pop('frequency', None)
    before = copy.deepcopy(dataset)
    index = coco_api(dataset)
    assert dataset == before
    assert {index.cats[i]['frequency'] for i in index.cats} == {'f'}


@pytest.mark.parametrize('crowd', [None, False, 0, 'absent'])
def test_what_tools_write_for_no_crowd(data, crowd):
    """The library under the evaluation takes numbers alone."""
    content = data.dataset()
    for annotation in content['annotations']:
        annotation.pop('iscrowd', None)
        if crowd != 'absent':
            annotation['iscrowd'] = crowd
    api = coco_api(content)
    assert {a['iscrowd'] for a in api.dataset['annotations']} == {0}
