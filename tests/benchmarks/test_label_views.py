"""Names from two looks: which look is which, and the figures of the table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope

from benchmarks.label_views import look, row
from tests.support import tiny_labelling


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


def test_figures_by_hand() -> None:
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.1, 0.4], [0.2, 0.1, 0.7]])
    labels, groups = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2])
    found = row(scores, labels, groups)
    assert found[0] == 1.0
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(2 / 3)
    assert found[3:6] == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    nll = -sum(math.log(p) for p in (0.7, 0.6, 0.4, 0.7)) / 4
    assert found[6] == pytest.approx(nll)


def test_looks_of_images(tmp_path: Path) -> None:
    """The mirrored look at an image is the plain look at the mirrored file."""
    ann_file = tiny_labelling.write_images(tmp_path)
    detector = tiny_labelling.build_teacher()
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(128, 96), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs'),
    ]

    def looks(flip: bool) -> tuple[torch.Tensor, ...]:
        steps = pipeline.copy()
        if flip:
            steps.insert(3, dict(type='RandomFlip', prob=1.0))
        dataset = DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(ann_file),
                data_prefix=dict(img=str(tmp_path)),
                metainfo=dict(classes=tiny_labelling.CLASSES),
                test_mode=True,
                pipeline=steps,
            )
        )
        return look(detector, dataset, num_images=4)

    view, mirrored, labels = looks(flip=False)
    turned, turned_mirrored, _ = looks(flip=True)
    torch.testing.assert_close(view, turned_mirrored, atol=1e-4, rtol=0)
    torch.testing.assert_close(mirrored, turned, atol=1e-4, rtol=0)
    assert not torch.allclose(view, mirrored, atol=1e-3)
    assert all(torch.allclose(p.sum(1), torch.ones(len(labels))) for p in (view, mirrored))
    told = json.loads(ann_file.read_text())['annotations']
    expected = [a['category_id'] - 1 for a in told if a['image_id'] < 14 and not a['iscrowd']]
    assert labels.tolist() == expected
