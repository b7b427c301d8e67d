"""A training that does not name its images cannot follow what an LVIS file says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.engine.federated_checks import (
    check_image_ids,
    learn_federated_images,
    warn_of_shared_ids,
)
from tests.support.data_sets import (
    ONE_EACH,
    coco,
    concat,
    labelled,
    make_runner,
)


def test_a_labelled_branch_that_names_no_image_is_refused_for_lvis(tmp_path: Path) -> None:
    init_default_scope('mmdet')
    files = coco(tmp_path / 'train.json', ONE_EACH)

    def branch(keys: tuple[str, ...]) -> CocoDataset:
        packed = [dict(type='PackDetInputs', meta_keys=keys)]
        branches = dict(type='MultiBranch', branch_field=['sup'], sup=packed)
        return CocoDataset(**files, pipeline=[branches])

    check_image_ids(make_runner(branch(('img_id', 'img_shape'))))
    with pytest.raises(ValueError, match=r"train\.json.*branch 'sup' has no 'img_id'"):
        check_image_ids(make_runner(branch(('img_shape',))))


def test_images_of_every_federated_file_are_known(tmp_path: Path, log: list[str]) -> None:
    sets = []
    for first, negative in ((0, [1]), (10, [2, 3])):
        folder = tmp_path / f'from {first}'
        folder.mkdir()
        files = coco(folder / 'lvis.json', ONE_EACH)
        path = folder / 'lvis.json'
        data = json.loads(path.read_text())
        for image in data['images']:
            image.update(id=image['id'] + first, neg_category_ids=negative)
        for annotation in data['annotations']:
            annotation['image_id'] += first
        path.write_text(json.dumps(data))
        sets.append(labelled(files))
    model = nn.Identity()
    model.federated = {}  # type: ignore[assignment]
    own = check_annotations(sets[1].ann_file)
    learn_federated_images(make_runner(concat(*sets), model=model), own)
    known = {i: set(classes.tolist()) for i, (classes, _) in model.federated.items()}
    # Image i of each holds class i; negative categories 1, and 2 and 3, are labels 0, 1 and 2.
    assert known == {i: {i, 0} for i in range(5)} | {10 + i: {i, 1, 2} for i in range(5)}
    assert not log


def test_ids_of_a_federated_file_that_another_has_are_said(tmp_path: Path, log: list[str]) -> None:
    one, other = (tmp_path / name for name in ('one', 'other'))
    for folder in (one, other):
        folder.mkdir()
    first = labelled(coco(one / 'lvis.json', ONE_EACH))
    second = labelled(coco(other / 'own.json', ONE_EACH))
    warn_of_shared_ids(make_runner(first), first.ann_file)
    assert not log
    warn_of_shared_ids(make_runner(concat(first, second)), first.ann_file)
    assert len(log) == 1 and 'lvis.json: 5 image ids, such as 0' in log[0]
