"""Objects of the json that the host leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmdet.datasets import CocoDataset

from mmdet_softpl.datasets.annotation_checks import AnnotationSummary, check_annotations
from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.engine.trained_instances import check_trained_instances
from tests.support.data_sets import (
    NAMES,
    ONE_EACH,
    coco,
    concat,
    labelled,
    make_runner,
)


def summary_of(dataset: CocoDataset) -> AnnotationSummary:
    return check_annotations(dataset.ann_file, classes=NAMES)


@pytest.mark.parametrize(
    'change',
    [dict(area=0), dict(bbox=[0.1, 0.1, 0.5, 0.5]), dict(bbox=[20, 20, 4, 4]), dict(ignore=1)],
    ids=['area', 'shares', 'outside', 'ignore'],
)
@pytest.mark.parametrize('share', ['none', 'one', 'all'])
def test_objects_that_the_host_leaves_out(
    tmp_path: Path, log: list[str], change: dict, share: str
) -> None:
    files = coco(tmp_path / 'train.json', ONE_EACH)
    content = json.loads((tmp_path / 'train.json').read_text())
    for annotation in content['annotations'][: dict(none=0, one=1, all=5)[share]]:
        annotation.update(change)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    dataset = labelled(files)
    # What is said is what the host does.
    given = sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset)))
    assert given == dict(none=5, one=4, all=0)[share]
    summary = summary_of(dataset)
    runner = make_runner(concat(dataset, labelled(coco(tmp_path / 'other.json', ONE_EACH))))
    if share == 'all':
        with pytest.raises(AnnotationError, match=r'train\.json: mmdet gives 0 of 5 objects'):
            check_trained_instances(runner, summary)
    else:
        check_trained_instances(runner, summary)
        assert len(log) == (share == 'one')
    if share == 'one':
        assert 'train.json: mmdet gives 4 of 5 objects' in log[0]


def test_of_a_part_of_the_images_no_number_is_expected(tmp_path: Path, log: list[str]) -> None:
    dataset = labelled(coco(tmp_path / 'train.json', ONE_EACH), indices=2)
    check_trained_instances(make_runner(dataset), summary_of(dataset))
    assert not log
