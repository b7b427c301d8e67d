"""Detections under shifted biases against the host's own; the choice on made-up detections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from mmdet_softpl.engine import rebalancing
from mmdet_softpl.engine.class_biases import ClassBiasError, shifted
from mmdet_softpl.engine.held_out import held_out_dataset
from mmdet_softpl.engine.plain_detector import PlainDetector, plain_detector
from mmdet_softpl.engine.rebalancing import (
    GAMMAS,
    check_replayable,
    choose_strength,
    detections_in_parts,
    halves_of,
    read_shifts,
)
from tests.support.tiny_trained import CLASSES, write_trained

SHIFTS = torch.tensor([[0.0] * 5, [2.0, -1.0, 0.5, 0.0, 3.0]])


@pytest.fixture(scope='module', params=['mask-rcnn', 'cascade-mask-rcnn'])
def trained(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, PlainDetector]:
    root = tmp_path_factory.mktemp('trained')
    config, checkpoint = write_trained(root, request.param)
    cfg = Config.fromfile(config)
    ann_file = str(root / 'annotations/instances_train2017.json')
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=ann_file)
    state_dict = torch.load(checkpoint, weights_only=False)['state_dict']
    return cfg, plain_detector(cfg, state_dict, 'teacher', checkpoint)


def test_detections_are_those_of_a_detector_with_these_biases(
    trained: tuple[Config, PlainDetector], tmp_path: Path
) -> None:
    cfg, plain = trained
    dataset, _ = held_out_dataset(cfg)
    before = {key: value.clone() for key, value in plain.model.state_dict().items()}
    records = detections_in_parts(plain.model, dataset, SHIFTS, tmp_path, batch_size=4)
    assert all(torch.equal(before[k], v) for k, v in plain.model.state_dict().items())
    differ = 0
    for row, mine in zip(SHIFTS, records, strict=True):
        plain.model.load_state_dict(shifted(before, row))
        for i, record in enumerate(mine):
            with torch.no_grad():
                (sample,) = plain.model.test_step(pseudo_collate([dataset[i]]))
            found = sample.pred_instances
            assert record['img_id'] == sample.img_id and len(found) > 0
            np.testing.assert_allclose(record['bboxes'], found.bboxes.numpy(), atol=0.011)
            np.testing.assert_allclose(record['scores'], found.scores.numpy(), atol=1e-5)
            assert record['labels'].tolist() == found.labels.tolist()
            other = records[0][i]['labels'].tolist()
            differ += record['labels'].tolist() != other
    plain.model.load_state_dict(before)
    assert differ > 0

    # A second call reads what the first one wrote.
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError('looked again')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain.model, 'extract_feat', refuse)
        again = detections_in_parts(plain.model, dataset, SHIFTS, tmp_path)
    for mine, same in zip(records[1], again[1], strict=True):
        np.testing.assert_array_equal(mine['bboxes'], same['bboxes'])


def made_up(num_images: int, best: int) -> tuple[dict, list[list[dict]]]:
    """Images of one object each; only under strength ``best`` is each of them named rightly."""
    data = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=50, width=50) for i in range(num_images)],
        categories=[dict(id=c + 1, name=name) for c, name in enumerate(CLASSES)],
        annotations=[
            dict(
                id=i + 1,
                image_id=i,
                category_id=i % 5 + 1,
                bbox=[5, 5, 20, 20],
                area=400,
                iscrowd=0,
            )
            for i in range(num_images)
        ],
    )
    records = [
        [
            dict(
                img_id=i,
                bboxes=np.array([[5, 5, 25, 25]], np.float32),
                scores=np.array([0.9], np.float32),
                labels=np.array([(i + (g != best and i % 3 == 0)) % 5], np.int32),
            )
            for i in range(num_images)
        ]
        for g in range(len(GAMMAS))
    ]
    return data, records


@pytest.mark.parametrize('best', [0, 3])
def test_the_best_strength_is_chosen(tmp_path: Path, best: int) -> None:
    data, records = made_up(40, best)
    labelled = tmp_path / 'labelled.json'
    labelled.write_text(json.dumps(data))
    # Of images that nobody looked at nothing is known.
    unseen = dict(data['images'][0], id=99)
    more = dict(data, images=[*data['images'], unseen])
    more['annotations'] = [*data['annotations'], dict(data['annotations'][0], id=99, image_id=99)]
    halves = halves_of(more, range(40), 0, 'held.json')
    found = choose_strength(records, more, halves, CLASSES, str(labelled), tmp_path)
    assert found['gamma'] == GAMMAS[best]
    assert [point['gamma'] for point in found['curve']] == list(GAMMAS)
    assert found['curve'][best]['AP'] > 0.99 > found['curve'][1]['AP']
    assert found['images'] == dict(choose=20, report=20)
    low, high = found['interval']
    if best:
        assert found['verdict'] == 'better' and 0 < low < high
        assert found['report']['new']['AP'] > 0.99 > found['report']['old']['AP']
    else:
        assert found['verdict'] == 'cannot tell' and (low, high) == (0, 0)
        assert found['report']['new'] == found['report']['old']


def test_the_interval_holds_95_percent_of_the_draws(tmp_path: Path, monkeypatch) -> None:
    data, records = made_up(40, 3)
    labelled = tmp_path / 'labelled.json'
    labelled.write_text(json.dumps(data))
    # Equal steps: quantile q is -0.1 + q, and zero lies at 10 %.
    draws = ({'bbox_AP': np.zeros(101)}, {'bbox_AP': np.linspace(-0.1, 0.9, 101)})
    monkeypatch.setattr(rebalancing, 'draw_aps', lambda *args: draws)
    halves = halves_of(data, range(40), 0, 'held.json')
    found = choose_strength(records, data, halves, CLASSES, str(labelled), tmp_path)
    assert found['interval'] == pytest.approx([-0.075, 0.875])
    assert found['verdict'] == 'cannot tell'


def test_a_choice_that_does_not_hold_is_worse(tmp_path: Path) -> None:
    data, records = made_up(40, 0)
    chosen = np.random.default_rng(0).permutation(40).tolist()[::2]
    right = made_up(40, 2)[1][2]
    # Strength 0.4 is right on the half that it is chosen on alone, 0 on the other alone.
    wrong = made_up(40, 1)[1][0]
    records[2] = [right[i] if i in chosen else wrong[i] for i in range(40)]
    records[0] = [wrong[i] if i in chosen else right[i] for i in range(40)]
    labelled = tmp_path / 'labelled.json'
    labelled.write_text(json.dumps(data))
    halves = halves_of(data, range(40), 0, 'held.json')
    assert halves['choose'] == set(chosen)
    found = choose_strength(records, data, halves, CLASSES, str(labelled), tmp_path)
    assert found['gamma'] == 0.4 and found['verdict'] == 'worse'


def test_what_is_tolerated_in_a_file_is_tolerated_in_its_halves(tmp_path: Path) -> None:
    data, records = made_up(40, 0)
    labelled = tmp_path / 'labelled.json'
    labelled.write_text(json.dumps(data))
    halves = halves_of(data, range(40), 0, 'held.json')
    plain = choose_strength(records, data, halves, CLASSES, str(labelled), tmp_path)
    flat = dict(data['annotations'][0], id=1000, bbox=[5, 5, 0, 5])
    data['annotations'].append(flat)
    assert choose_strength(records, data, halves, CLASSES, str(labelled), tmp_path) == plain


def test_images_that_cannot_be_halved() -> None:
    data, _ = made_up(8, 0)
    with pytest.raises(ValueError, match='3 images are too few'):
        halves_of(data, [0, 1, 2], 0, 'held.json')
    data['annotations'] = data['annotations'][:1]
    with pytest.raises(ValueError, match='one half of its 8 images shows no'):
        halves_of(data, range(8), 0, 'held.json')
    data['annotations'][0]['iscrowd'] = 1
    with pytest.raises(ValueError, match='shows no labelled object'):
        halves_of(data, range(8), 0, 'held.json')


def test_detectors_that_need_more_than_proposals(trained: tuple[Config, PlainDetector]) -> None:
    _, plain = trained
    check_replayable(plain.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plain.model.roi_head), 'with_semantic', True, raising=False)
        with pytest.raises(ClassBiasError, match='a branch beside its boxes'):
            check_replayable(plain.model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(plain.model), 'with_rpn', False)
        with pytest.raises(ClassBiasError, match='has no RPN'):
            check_replayable(plain.model)


GOOD = dict(
    classes=['a', 'b'],
    shifts=[0, 1.5],
    network='teacher',
    checkpoint='t.pth',
    verdict='better',
    class_biases='abc',
)


def test_shifts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'r.json'
    path.write_text(json.dumps(GOOD))
    shifts, doubts = read_shifts(str(path), ('a', 'b'), 'teacher', 'work_dirs/t.pth', 'abc')
    assert shifts.tolist() == [0, 1.5] and doubts == []
    path.write_text(json.dumps(GOOD | dict(verdict='cannot tell')))
    # Checkpoints of two trainings have the same name.
    _, doubts = read_shifts(str(path), ('a', 'b'), 'teacher', 'other/t.pth', 'abd')
    assert 'was made with t.pth, whose class biases are not those of other/t.pth' in doubts[0]
    assert "says 'cannot tell'" in doubts[1]


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (None, 'no json that `rebalance` wrote'),
        (dict(shifts=None), 'no json that `rebalance` wrote'),
        (dict(classes=None), 'no json that `rebalance` wrote'),
        ('{}', "wrote .it lacks 'shifts'.$"),
        (dict(classes=['b', 'a']), 'made for other classes'),
        (dict(shifts=[0]), 'made for other classes'),
        (dict(shifts=[0, float('nan')]), 'or damaged'),
        (dict(network='student'), 'made for the student, but the teacher is exported'),
    ],
)
def test_wrong_files(tmp_path: Path, changed: dict | str | None, message: str) -> None:
    path = tmp_path / 'r.json'
    text = json.dumps(GOOD | changed) if isinstance(changed, dict) else changed or '{'
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_shifts(str(path), ('a', 'b'), 'teacher', 't.pth', 'abc')
    with pytest.raises(FileNotFoundError, match='there is no such file'):
        read_shifts(str(tmp_path / 'nowhere.json'), ('a', 'b'), 'teacher', 't.pth', 'abc')
