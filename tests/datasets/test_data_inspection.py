"""The whole inspection: order of findings, each file read once, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_softpl.datasets.data_inspection import inspect_data
from mmdet_softpl.datasets.findings import ERROR, WARNING
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd')


@pytest.fixture()
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / 'data', CLASSES, num_train=4)


def _cfg(root: Path) -> dict:
    def coco(split: str) -> dict:
        return dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file=f'annotations/instances_{split}2017.json',
            data_prefix=dict(img=f'{split}2017'),
            metainfo=dict(classes=CLASSES),
        )

    folder = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=f'{root}/unlabeled2017')
    return dict(
        train_dataloader=dict(dataset=dict(datasets=[coco('train'), folder])),
        val_dataloader=dict(dataset=coco('val')),
        test_dataloader=dict(dataset=dict(coco('val'), data_prefix=dict(img='val2017/'))),
    )


def test_sound_data(root: Path) -> None:
    steps, totals = [], []

    def track(total: int):
        totals.append(total)
        return lambda: steps.append(1)

    inspection = inspect_data(_cfg(root), track=track)
    assert inspection.trains and inspection.findings == ()
    assert [len(s.images) for s in inspection.sets] == [4, 4, 2, 2]
    # The pictures of validation and test are the same files.
    assert totals == [10] and len(steps) == 10
    assert all(i.path in inspection.scanned for s in inspection.sets for i in s.images)
    unread = inspect_data(_cfg(root), read_images=False)
    assert unread.scanned is None and unread.findings == ()


def test_everything_missing_is_all_findings(tmp_path: Path) -> None:
    inspection = inspect_data(_cfg(tmp_path / 'nowhere'))
    assert not inspection.trains
    kinds = [(f.subject, f.kind) for f in inspection.findings]
    assert kinds == [
        ('labelled', 'unusable file'),
        ('unlabelled', 'missing folder'),
        ('validation', 'unusable file'),
        ('test', 'unusable file'),
    ]


def test_errors_come_first(root: Path) -> None:
    path = root / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    data['images'][0]['height'] += 1
    path.write_text(json.dumps(data))
    next((root / 'val2017').iterdir()).with_name('000000000006.jpg').unlink()
    inspection = inspect_data(_cfg(root))
    severities = [f.severity for f in inspection.findings]
    assert severities == sorted(severities, key=(ERROR, WARNING).index)
    assert severities[0] == ERROR and severities[-1] == WARNING and not inspection.trains
