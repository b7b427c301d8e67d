"""A training that does not name its images cannot follow what an LVIS file says of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope

from mmdet_softpl.engine.federated_checks import check_image_ids, warn_of_shared_ids
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
