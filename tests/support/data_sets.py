"""Data sets of a few images, and a runner that has them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmdet.datasets import CocoDataset, ConcatDataset
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_softpl.engine.data_checks import check_datasets

NAMES = ('ant', 'bee', 'cat', 'dog', 'elk')


class Pictures(BaseDataset):
    """Two images of a class each."""

    def load_data_list(self) -> list[dict]:
        return [dict(instances=[dict(bbox_label=0)]), dict(instances=[dict(bbox_label=1)])]

    def get_cat_ids(self, idx: int) -> list[int]:
        return [instance['bbox_label'] for instance in self.get_data_info(idx)['instances']]


def pictures(classes: tuple[str, ...] | None, name: str = 'train.json') -> BaseDataset:
    dataset = Pictures(metainfo=None if classes is None else dict(classes=classes))
    dataset.ann_file = name
    return dataset


def concat(*datasets: Any) -> Any:
    return ConcatDataset(list(datasets), ignore_keys=['classes'])


def make_runner(train: Any, val: Any = None, model: nn.Module | None = None) -> Any:
    loader = None if val is None else SimpleNamespace(dataset=val)
    return SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=train),
        val_dataloader=loader,
        _val_dataloader=loader,
        _val_loop=None if val is None else object(),
        model=nn.Identity() if model is None else model,
    )


def coco(
    path: Path, boxes: dict[str, list[list[float]]], names: tuple[str, ...] = NAMES
) -> dict[str, Any]:
    """Write a json of one image a box, and say what a data set of it is built with."""
    annotations = [
        dict(category_id=names.index(name) + 1, bbox=box, area=1.0, iscrowd=0)
        for name, own in boxes.items()
        for box in own
    ]
    for i, annotation in enumerate(annotations):
        annotation.update(id=i, image_id=i)
        (path.parent / f'{i}.jpg').touch()
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', height=9, width=9)
            for i in range(max(1, len(annotations)))
        ],
        annotations=annotations,
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)],
    )
    path.write_text(json.dumps(content))
    return dict(ann_file=path.name, data_root=str(path.parent), data_prefix=dict(img=''))


BOX = [1.0, 1.0, 4.0, 4.0]


ONE_EACH = {name: [BOX] for name in NAMES}


def labelled(files: dict[str, Any], branch: str | None = None, **kwargs: Any) -> CocoDataset:
    pipeline: list[dict] = []
    if branch is not None:
        pipeline.append(dict(type='MultiBranch', branch_field=[branch], **{branch: []}))
    init_default_scope('mmdet')
    return CocoDataset(**files, metainfo=dict(classes=NAMES), pipeline=pipeline, **kwargs)


def error_of(runner: Any) -> str:
    """What ``check_datasets`` refuses it with."""
    with pytest.raises(ValueError) as error:
        check_datasets(runner)
    return str(error.value)
