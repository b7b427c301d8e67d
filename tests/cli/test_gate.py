"""``gate`` from the command line to the data set, on a teacher whose answers are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_softpl.__main__ import INTERRUPTED, main
from mmdet_softpl.datasets.generated_image_dataset import GeneratedImageDataset
from mmdet_softpl.datasets.review_masks import encode_mask
from mmdet_softpl.datasets.wrong_labels import right_and_wrong_labels, spoil_labels
from mmdet_softpl.engine import label_gating, load_teacher
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd')
FAMILIES = ('x', 'x', 'y', 'y')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Held-out images are those of ``train``, generated ones ``val`` and ``train`` again."""
    write_data(tmp_path / 'data', CLASSES, num_train=24)
    path = tmp_path / 'data' / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    for category, family in zip(content['categories'], FAMILIES, strict=True):
        category['supercategory'] = family
    path.write_text(json.dumps(content))
    (tmp_path / 'generated.json').write_text(json.dumps(spoil_labels(content, 0.4, 7)))
    (tmp_path / 'config.py').write_text(
        "model = dict(type='mmdet_softpl.CalibratedSoftTeacher')\n"
        "steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]\n"
        'val_dataloader = dict(dataset=dict(times=1, dataset=dict(pipeline=steps)))\n'
    )
    (tmp_path / 'teacher.pth').write_text('not read')
    return tmp_path


def seen(
    annotations: dict[int, list[dict]], agreement: Callable[[dict], float], noise: float
) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        dict(
            img_id=image_id,
            evidence=[
                (agreement(a) + noise * (2 * torch.rand(5, generator=generator) - 1)).tolist()
                for a in of_image
            ],
            objects=[dict(bbox=[0, 0, 9, 9], label=1, confidence=0.6)],
        )
        for image_id, of_image in annotations.items()
    ]


def unsure(annotation: dict) -> float:
    """More for right labels than for wrong ones, hardly so for class a."""
    lead = 0.02 if annotation['category_id'] == 1 else 0.1
    return 0.5 + lead if annotation['made'] == 'right' else 0.5 - lead


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces loading and looking; the list holds the sets that were looked at."""
    looked: list[str] = []

    def look(detector, dataset, annotations, labels, part: Path, *, progress, **kwargs: Any):
        path = part / 'part-0000000.json'
        if path.is_file():
            return json.loads(path.read_text())
        looked.append(part.name)
        records = seen(annotations, lambda a: 0.8 if a['made'] == 'right' else 0.3, 0.15)
        progress(len(records))
        path.write_text(json.dumps(records))
        return records

    fake = SimpleNamespace(
        num_classes=len(CLASSES),
        teacher=SimpleNamespace(roi_head=SimpleNamespace(with_mask=True)),
        to=lambda device: None,
    )
    monkeypatch.setattr(load_teacher, 'load_teacher', lambda cfg, checkpoint: (fake, ['a doubt']))
    monkeypatch.setattr(label_gating, 'evidence_in_parts', look)
    init_default_scope('mmdet')
    return looked


def corners(boxes: list[list[float]]) -> torch.Tensor:
    sides = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return torch.cat([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1)


def run(folder: Path, *more: str, **changed: str) -> int:
    images = str(folder / 'data' / 'train2017')
    options = dict(
        config=str(folder / 'config.py'),
        checkpoint=str(folder / 'teacher.pth'),
        ann_file=str(folder / 'generated.json'),
        images=images,
        held_out=str(folder / 'data' / 'annotations' / 'instances_train2017.json'),
        held_out_images=images,
        out=str(folder / 'gated.json'),
    )
    options.update(changed)
    positional = [options.pop(name) for name in ('config', 'checkpoint', 'ann_file')]
    named = [word for k, v in options.items() for word in (f'--{k.replace("_", "-")}', v)]
    return main(['gate', *positional, *named, *more])


def test_from_the_command_to_the_data_set(folder: Path, teacher: list[str], capsys) -> None:
    assert run(folder, '--json') == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert 'a doubt' in captured.err and teacher == ['held-out', 'generated']
    gated = json.loads((folder / 'gated.json').read_text())
    judged = [a for a in gated['annotations'] if 'made' in a]
    # Noise of 0.15 around 0.8 and 0.3 leaves no doubt.
    assert all(a['keep'] == (a['made'] == 'right') for a in judged)
    assert all(0 <= a['weight'] <= 1 and set(a['evidence']) for a in judged)
    assert summary['labels'] == len(judged) and summary['kept'] == sum(a['keep'] for a in judged)
    assert sum(record['labels'] for record in summary['classes'].values()) == len(judged)
    held_out = gated['gate']['held_out']
    assert held_out['right']['kept'] == 1 and held_out['look_alike']['kept'] == 0
    assert gated['gate']['expected'] == dict(right_kept=1, wrong_dropped=1)
    regions = [a for a in gated['annotations'] if a.get('source') == 'teacher']
    assert summary['unnamed_objects'] == len(regions) > 0
    assert all(a['iscrowd'] and a['category_id'] == 2 for a in regions)
    assert len({a['id'] for a in gated['annotations']}) == len(gated['annotations'])
    dataset = GeneratedImageDataset(
        ann_file=str(folder / 'gated.json'),
        data_prefix=dict(img=str(folder / 'data' / 'train2017')),
        metainfo=dict(classes=CLASSES),
    )
    instances = [i for info in dataset for i in info['instances']]
    assert sum(not i['ignore_flag'] for i in instances) == summary['kept']


def test_held_out_images_that_were_trained_on_are_doubted(
    folder: Path, teacher: list[str], capsys
) -> None:
    assert run(folder) == 0
    assert 'labelled image' not in capsys.readouterr().err
    held_out = folder / 'data' / 'annotations' / 'instances_train2017.json'
    with open(folder / 'config.py', 'a') as file:
        file.write(f"labelled = dict(type='CocoDataset', ann_file='{held_out}')\n")
        file.write(f'labelled.update(metainfo=dict(classes={CLASSES}))\n')
        file.write('train_dataloader = dict(dataset=labelled)\n')
    assert run(folder, '--overwrite') == 0
    warning = capsys.readouterr().err
    assert f'warning: {held_out}: 24 of 24 images have the name of a labelled image' in warning


def test_a_region_under_a_kept_label_is_left_out(folder: Path, teacher: list[str]) -> None:
    path = folder / 'generated.json'
    content = json.loads(path.read_text())
    first = next(a for a in content['annotations'] if a['made'] == 'right')
    first['bbox'] = [0, 0, 9, 10]
    path.write_text(json.dumps(content))
    assert run(folder) == 0
    gated = json.loads((folder / 'gated.json').read_text())
    regions = [a['image_id'] for a in gated['annotations'] if a.get('source') == 'teacher']
    shown = {a['image_id'] for a in content['annotations']}
    assert set(regions) == shown - {first['image_id']}


@pytest.mark.parametrize(
    ('box', 'inside'), [([5, 5, 3, 6], 2 / 3), ([5, 4, 4, 9], 5 / 9), ([5, 5, 4, 9], 4 / 9)]
)
def test_no_region_takes_the_proposals_of_a_kept_label(
    folder: Path, teacher: list[str], box: list[int], inside: float
) -> None:
    """A hat within an unlabelled person: with the assigner of the docs it would be ignored."""
    path = folder / 'generated.json'
    content = json.loads(path.read_text())
    first = next(a for a in content['annotations'] if a['made'] == 'right')
    first['bbox'] = box
    path.write_text(json.dumps(content))
    assert run(folder) == 0
    gated = json.loads((folder / 'gated.json').read_text())
    regions = [a for a in gated['annotations'] if a.get('source') == 'teacher']
    assert regions and (first['image_id'] in {a['image_id'] for a in regions}) == (inside < 0.5)
    kept = [a for a in gated['annotations'] if a['keep'] and not a.get('iscrowd')]
    for region in regions:
        labels = [a['bbox'] for a in kept if a['image_id'] == region['image_id']]
        truth = InstanceData(
            bboxes=corners(labels), labels=torch.zeros(len(labels), dtype=torch.long)
        )
        assigner = MaxIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.5, ignore_iof_thr=0.5)
        ignored = InstanceData(bboxes=corners([region['bbox']]))
        found = assigner.assign(InstanceData(priors=corners(labels)), truth, ignored)
        assert found.gt_inds.tolist() == list(range(1, len(labels) + 1))


def test_a_gated_file_may_be_gated_again(folder: Path, teacher: list[str]) -> None:
    """What the first teacher saw beside its labels may be a kept label of the second."""
    assert run(folder) == 0
    first = json.loads((folder / 'gated.json').read_text())
    assert run(folder, ann_file=str(folder / 'gated.json'), out=str(folder / 'again.json')) == 0
    again = json.loads((folder / 'again.json').read_text())
    assert again['annotations'] == first['annotations']


def test_labels_without_an_area_get_that_of_their_box(folder: Path, teacher: list[str]) -> None:
    """Scripts write 0 or nothing; mmdet would drop these, or stop at them."""
    path = folder / 'generated.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['area'] = 0
    del content['annotations'][1]['area']
    path.write_text(json.dumps(content))
    assert run(folder) == 0
    gated = {a['id']: a for a in json.loads((folder / 'gated.json').read_text())['annotations']}
    for annotation in content['annotations'][:2]:
        _, _, width, height = annotation['bbox']
        assert gated[annotation['id']]['area'] == width * height
    third = content['annotations'][2]
    assert gated[third['id']]['area'] == third['area']


@pytest.mark.parametrize('name', ['ann_file', 'held_out'])
def test_masks_of_another_size(folder: Path, teacher: list[str], capsys, name: str) -> None:
    content = json.loads((folder / 'generated.json').read_text())
    first = content['annotations'][0]
    image = next(i for i in content['images'] if i['id'] == first['image_id'])
    first['segmentation'] = encode_mask(np.ones((image['height'] - 1, image['width'])))
    (folder / 'odd.json').write_text(json.dumps(content))
    assert run(folder, **{name: str(folder / 'odd.json')}) == 2
    said = capsys.readouterr().err
    assert 'odd.json: 1 masks' in said and f'id {first["id"]} (' in said
    assert teacher == []


def test_a_labelled_set_that_is_no_json(folder: Path, teacher: list[str]) -> None:
    """A VOCDataset lists its images in a text file."""
    (folder / 'trainval.txt').write_text('000001\n')
    with open(folder / 'config.py', 'a') as file:
        text = f"dict(type='mmdet.VOCDataset', ann_file='{folder / 'trainval.txt'}')"
        file.write(f'train_dataloader = dict(dataset={text})\n')
    assert run(folder) == 0


def test_another_precision_needs_no_teacher(folder: Path, teacher: list[str], capsys) -> None:
    assert run(folder) == 0
    text = capsys.readouterr().out
    assert 'generated labels:' in text and 'look alike' in text
    assert run(folder) == 2
    assert 'exists; give --overwrite' in capsys.readouterr().err
    assert run(folder, '--overwrite', '--precision', '0.9', '--wrong-share', '0.5') == 0
    assert teacher == ['held-out', 'generated']
    gate = json.loads((folder / 'gated.json').read_text())['gate']
    assert gate['precision'] == 0.9 and gate['wrong_share'] == 0.5
    # Other labels are other evidence.
    assert run(folder, '--overwrite', '--seed', '1') == 0
    assert teacher == ['held-out', 'generated'] * 2


@pytest.mark.parametrize(('share', 'precision'), [(0.05, 0.97), (0.5, 0.7)])
def test_precision_and_weights_are_those_of_the_share_of_wrong_labels(
    folder: Path, teacher: list[str], monkeypatch, share: float, precision: float
) -> None:
    """Generated labels that are the held-out ones: what the gate promises can be counted."""
    monkeypatch.setattr(
        label_gating, 'evidence_in_parts', lambda *args, **_: seen(args[2], unsure, 0.3)
    )
    held_out = json.loads(
        (folder / 'data' / 'annotations' / 'instances_train2017.json').read_text()
    )
    same = right_and_wrong_labels(
        held_out, label_gating.WRONG_PER_RIGHT, 0, label_gating.JUDGED_KINDS
    )
    (folder / 'generated.json').write_text(json.dumps(same))
    assert run(folder, precision=str(precision), wrong_share=str(share)) == 0
    gated = json.loads((folder / 'gated.json').read_text())
    judged = [a for a in gated['annotations'] if 'made' in a]
    weights, keep = (np.array([a[key] for a in judged]) for key in ('weight', 'keep'))
    right = np.array([a['made'] == 'right' for a in judged])
    # The likelihood equation of the gate's bias.
    mean = (1 - share) * weights[right].mean() + share * weights[~right].mean()
    assert mean == pytest.approx(1 - share, abs=1e-4)

    def reached(kept: np.ndarray) -> float:
        good, bad = (1 - share) * kept[right].mean(), share * kept[~right].mean()
        return good / (good + bad)

    assert 0 < keep.sum() < len(keep)
    assert reached(keep) >= precision > reached(weights >= weights[~keep].max())
    gate = gated['gate']
    assert gate['held_out']['right']['kept'] == pytest.approx(keep[right].mean(), abs=1e-4)
    assert gate['expected'] == pytest.approx(
        dict(right_kept=keep[right].mean(), wrong_dropped=1 - keep[~right].mean()), abs=1e-4
    )


def test_the_threshold_is_for_the_classes_of_the_generated_images(
    folder: Path, teacher: list[str], monkeypatch
) -> None:
    monkeypatch.setattr(
        label_gating, 'evidence_in_parts', lambda *args, **_: seen(args[2], unsure, 0.3)
    )
    content = json.loads((folder / 'generated.json').read_text())
    gates = []
    for category in (1, 2):
        alone = [a for a in content['annotations'] if a['category_id'] == category]
        path = folder / f'{category}.json'
        path.write_text(json.dumps(dict(content, annotations=alone)))
        assert run(folder, ann_file=str(path), out=str(folder / f'gated-{category}.json')) == 0
        gates.append(json.loads((folder / f'gated-{category}.json').read_text())['gate'])
    hard, easy = gates
    assert hard['coefficients'] == easy['coefficients']
    assert hard['threshold'] != easy['threshold']
    assert all(hard['expected'][key] < easy['expected'][key] for key in easy['expected'])


def test_a_precision_out_of_reach(folder: Path, teacher: list[str], monkeypatch, capsys) -> None:
    """Of labels that all look alike as many are right as are assumed to be."""
    monkeypatch.setattr(
        label_gating, 'evidence_in_parts', lambda *args, **_: seen(args[2], lambda a: 0.5, 0)
    )
    assert run(folder, precision='0.81', wrong_share='0.2') == 2
    assert 'no threshold reaches a precision of 0.81' in capsys.readouterr().err
    assert not (folder / 'gated.json').exists()


@pytest.mark.parametrize('without', [None, 'ann_file', 'held_out'])
def test_masks_are_compared_where_every_label_has_one(
    folder: Path, teacher: list[str], monkeypatch, without: str | None
) -> None:
    compared = []
    look = label_gating.evidence_in_parts

    def noting(*args: Any, with_masks: bool, **kwargs: Any):
        compared.append(with_masks)
        return look(*args, **kwargs)

    monkeypatch.setattr(label_gating, 'evidence_in_parts', noting)
    content = json.loads((folder / 'generated.json').read_text())
    del content['annotations'][3]['segmentation']
    (folder / 'boxes.json').write_text(json.dumps(content))
    changed = {without: str(folder / 'boxes.json')} if without else {}
    assert run(folder, **changed) == 0
    assert compared == 2 * [without is None]


def test_held_out_images_lie_elsewhere(folder: Path, teacher: list[str]) -> None:
    path = folder / 'data' / 'annotations' / 'instances_train2017.json'
    content = json.loads(path.read_text())
    (folder / 'elsewhere').mkdir()
    for image in content['images']:
        old = folder / 'data' / 'train2017' / image['file_name']
        image['file_name'] = f'held-out-{old.name}'
        (folder / 'elsewhere' / image['file_name']).write_bytes(old.read_bytes())
    path.write_text(json.dumps(content))
    assert run(folder, held_out_images=str(folder / 'elsewhere')) == 0


@pytest.mark.parametrize('new_ids', [(0, 1, 2, 3), (4, 3, 2, 1), (70, 5, 6, 90)])
def test_each_file_has_ids_of_its_own(
    folder: Path, teacher: list[str], monkeypatch, new_ids: tuple[int, ...]
) -> None:
    asked: dict[str, list[tuple[str, str]]] = {}
    look = label_gating.evidence_in_parts

    def noting(detector, dataset, annotations, labels, part: Path, **kwargs: Any):
        names = {c['id']: c['name'] for c in files[part.name]['categories']}
        asked[part.name] = [
            (names[a['category_id']], CLASSES[labels[a['category_id']]])
            for of_image in annotations.values()
            for a in of_image
        ]
        return look(detector, dataset, annotations, labels, part, **kwargs)

    monkeypatch.setattr(label_gating, 'evidence_in_parts', noting)
    path = folder / 'generated.json'
    content = json.loads(path.read_text())
    old = [category['id'] for category in content['categories']]
    number = dict(zip(old, new_ids, strict=True))
    for category in content['categories']:
        category['id'] = number[category['id']]
    for annotation in content['annotations']:
        annotation['category_id'] = number[annotation['category_id']]
    path.write_text(json.dumps(content))
    held_out = folder / 'data' / 'annotations' / 'instances_train2017.json'
    files = {'generated': content, 'held-out': json.loads(held_out.read_text())}
    assert run(folder) == 0
    assert set(asked) == {'generated', 'held-out'}
    assert all(is_ == meant for pairs in asked.values() for is_, meant in pairs)
    assert {
        a['category_id'] for a in json.loads((folder / 'gated.json').read_text())['annotations']
    } <= set(new_ids)


@pytest.mark.parametrize('what', ['image', 'checkpoint', 'json', 'model', 'pipeline'])
def test_evidence_of_something_else_is_looked_for_anew(
    folder: Path, teacher: list[str], what: str
) -> None:
    assert run(folder) == 0
    config = folder / 'config.py'
    if what == 'image':
        image = next((folder / 'data' / 'train2017').iterdir())
        image.write_bytes(image.read_bytes() + b'more')
    elif what == 'checkpoint':
        (folder / 'teacher.pth').write_text('another one')
    elif what == 'json':
        path = folder / 'generated.json'
        path.write_text(path.read_text() + ' ')
    elif what == 'model':
        # A base counts as the file itself.
        config.rename(folder / 'base.py')
        config.write_text("_base_ = 'base.py'\nmodel = dict(semi_train_cfg=dict(mirror=True))\n")
    else:
        text = config.read_text()
        config.write_text(text.replace("type='LoadAnnotations'", "type='Pad', size_divisor=32"))
    assert run(folder, '--overwrite') == 0
    assert teacher == ['held-out', 'generated'] * 2


def test_interrupted(folder: Path, teacher: list[str], monkeypatch, capsys) -> None:
    look = label_gating.evidence_in_parts

    def stop(detector, dataset, annotations, labels, part: Path, **kwargs: Any):
        if part.name == 'generated':
            raise KeyboardInterrupt
        return look(detector, dataset, annotations, labels, part, **kwargs)

    monkeypatch.setattr(label_gating, 'evidence_in_parts', stop)
    assert run(folder) == INTERRUPTED
    assert 'the same command goes on from here' in capsys.readouterr().err
    assert not (folder / 'gated.json').exists()
    monkeypatch.setattr(label_gating, 'evidence_in_parts', look)
    assert run(folder) == 0
    assert teacher == ['held-out', 'generated']


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(images='nowhere'), '--images nowhere: there is no such folder'),
        (dict(images=__file__), 'a folder of images is needed; was it swapped with ANN_FILE?'),
        (dict(held_out_images=__file__), 'was it swapped with --held-out?'),
        (dict(precision='90'), '--precision lies between 0 and 1 (0.9, not 90); got 90'),
        (dict(ann_file='nowhere.json'), 'nowhere.json: the annotation file does not exist'),
        (dict(config='nowhere.py'), 'nowhere.py: there is no such config'),
        (dict(out='nowhere/gated.json'), 'the folder of --out does not exist'),
        (dict(precision='0'), 'precision must lie in (0, 1], got 0'),
        (dict(wrong_share='0'), 'wrong_share must lie in (0, 1), got 0.0'),
        (dict(batch_size='0'), '--batch-size must be at least 1'),
        (dict(held_out='same'), 'whose labels are to be judged'),
    ],
)
def test_mistakes(folder: Path, teacher: list[str], capsys, changed, message: str) -> None:
    if changed.get('held_out') == 'same':
        changed = dict(held_out=str(folder / 'generated.json'))
    assert run(folder, **changed) == 2
    assert message in capsys.readouterr().err
    assert teacher == [] and not list(folder.glob('gated*'))


def test_no_input_is_replaced(folder: Path, teacher: list[str], capsys) -> None:
    held_out = folder / 'data' / 'annotations' / 'instances_train2017.json'
    for path, name in ((folder / 'generated.json', 'ANN_FILE'), (held_out, '--held-out')):
        before = path.read_bytes()
        assert run(folder, '--overwrite', out=str(path)) == 2
        assert f'--out {path} is {name}' in capsys.readouterr().err
        assert path.read_bytes() == before


def test_files_that_do_not_fit(folder: Path, teacher: list[str], capsys) -> None:
    path = folder / 'generated.json'
    content = json.loads(path.read_text())
    for few in (10, 0):
        small = dict(content, annotations=content['annotations'][:few])
        (folder / 'small.json').write_text(json.dumps(small))
        assert run(folder, held_out=str(folder / 'small.json')) == 2
    assert 'small.json' in capsys.readouterr().err
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    assert run(folder) == 2
    assert 'other order' in capsys.readouterr().err
    assert teacher == []


@pytest.mark.parametrize('name', ['ann_file', 'held_out'])
@pytest.mark.parametrize('height', [None, 0])
def test_images_of_unknown_size(
    folder: Path, teacher: list[str], capsys, name: str, height: int | None
) -> None:
    content = json.loads((folder / 'generated.json').read_text())
    if height is None:
        del content['images'][1]['height']
    else:
        content['images'][1]['height'] = height
    (folder / 'unknown.json').write_text(json.dumps(content))
    assert run(folder, **{name: str(folder / 'unknown.json')}) == 2
    said = capsys.readouterr().err
    assert 'unknown.json: 1 of 24 images without `height` or `width`: id 2. Write' in said
    assert teacher == []


@pytest.mark.parametrize('name', ['ann_file', 'held_out'])
def test_ids_that_are_words(folder: Path, teacher: list[str], capsys, name: str) -> None:
    content = json.loads((folder / 'generated.json').read_text())
    for entry in (content['images'], content['annotations']):
        for item in entry:
            key = 'image_id' if 'image_id' in item else 'id'
            item[key] = f'IMG_{item[key]}'
    (folder / 'words.json').write_text(json.dumps(content))
    assert run(folder, **{name: str(folder / 'words.json')}) == 2
    said = capsys.readouterr().err
    assert 'words.json' in said and "id='IMG_1'" in said and 'number them anew' in said
    assert teacher == []


def test_files_in_another_order_than_the_training(folder: Path, teacher: list[str], capsys) -> None:
    """They agree with each other, and every label would be judged as another class."""
    held_out = folder / 'data' / 'annotations' / 'instances_train2017.json'
    labelled = folder / 'labelled.json'
    labelled.write_text(held_out.read_text())
    train = dict(
        type='CocoDataset',
        ann_file=str(labelled),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadAnnotations')],
    )
    with open(folder / 'config.py', 'a') as file:
        file.write(f'train_dataloader = {dict(dataset=train)!r}\n')
    assert run(folder) == 0
    for path in (folder / 'generated.json', held_out):
        content = json.loads(path.read_text())
        content['categories'].reverse()
        path.write_text(json.dumps(content))
    assert run(folder, '--overwrite') == 2
    error = capsys.readouterr().err
    assert 'other order' in error and 'labelled.json' in error


def test_a_foreign_folder_is_left_alone(folder: Path, teacher: list[str], capsys) -> None:
    foreign = folder / 'gated.json.evidence'
    foreign.mkdir()
    (foreign / 'thesis.txt').touch()
    assert run(folder) == 2
    assert 'holds other files' in capsys.readouterr().err and (foreign / 'thesis.txt').exists()


def test_help_has_an_example(capsys) -> None:
    with pytest.raises(SystemExit):
        main(['gate', '--help'])
    assert 'example:' in capsys.readouterr().out
