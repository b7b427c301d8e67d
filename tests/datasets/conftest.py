"""A tiny long-tail shapes data set and hand-made annotation files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig


@pytest.fixture(scope='session')
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a data set with the classes of the shipped config; do not write into it."""
    root = tmp_path_factory.mktemp('shapes')
    config = ShapesConfig(num_train=28, num_unlabeled=20, num_val=10)
    generate_longtail_shapes(root, config, progress=False, workers=1)
    return root


GOOD: dict[str, Any] = {
    'images': [
        {'id': 7, 'file_name': 'a.jpg', 'height': 40, 'width': 60},
        {'id': 3, 'file_name': 'b.jpg', 'height': 40, 'width': 60},
        {'id': 5, 'file_name': 'c.jpg', 'height': 60, 'width': 40},
    ],
    # Ids neither sorted nor dense: label order is the order of this list.
    'categories': [{'id': 9, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    'annotations': [
        {
            'id': 1,
            'image_id': 7,
            'category_id': 2,
            'bbox': [1, 2, 10, 5],
            'area': 50,
            'segmentation': [[1, 2, 11, 2, 11, 7, 1, 7]],
        },
        {
            'id': 2,
            'image_id': 7,
            'category_id': 2,
            'bbox': [20, 2, 10, 5],
            'area': 50,
            'segmentation': [[20, 2, 30, 2, 30, 7, 20, 7]],
        },
        {
            'id': 3,
            'image_id': 3,
            'category_id': 9,
            'bbox': [0, 0, 4, 4],
            'area': 16,
            'segmentation': {'size': [40, 60], 'counts': [0, 4, 36, 4, 36, 4, 36, 4, 2276]},
        },
    ],
}


@pytest.fixture()
def good() -> dict[str, Any]:
    """A sound COCO dict of three images (one empty) and two classes, free to change."""
    return copy.deepcopy(GOOD)


@pytest.fixture()
def write(tmp_path: Path):
    """Function that writes a dict to a json file and returns its path."""

    def _write(data: Any, name: str = 'ann.json') -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(data))
        return path

    return _write
