"""The benchmark's data are as hard as they claim to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.longtail.data import LONGTAIL_60, SPLITS, TINY, count, make_data
from mmdet_softpl.datasets.longtail_shapes import plan_splits
from mmdet_softpl.datasets.shape_classes import shape_classes


def planned(split: str, images: bool = True) -> np.ndarray:
    """(C,) images (or objects) that each class is planned for."""
    plan = plan_splits(LONGTAIL_60)[split]
    labels = np.concatenate([sorted(set(i)) if images else i for i in plan]).astype(int)
    return np.bincount(labels, minlength=LONGTAIL_60.num_classes)


def test_the_labelled_set_fills_the_groups() -> None:
    counts = planned('train')
    assert LONGTAIL_60.num_classes >= 60
    assert (counts <= 10).sum() >= 20
    assert ((counts > 10) & (counts <= 100)).sum() >= 20
    # 110 planned images leave more than 100 where some objects find no room.
    assert (counts >= 110).sum() >= 10
    assert counts.min() >= 1
    families = {shape.outline for shape in shape_classes(LONGTAIL_60.num_classes)}
    assert LONGTAIL_60.num_classes / len(families) >= 5


def test_the_unlabelled_set_has_eight_times_the_same_tail() -> None:
    assert LONGTAIL_60.num_unlabeled >= 8 * LONGTAIL_60.num_train
    np.testing.assert_allclose(planned('unlabeled'), 8 * planned('train'), rtol=0.01)


@pytest.mark.parametrize('split', SPLITS)
def test_evaluation_is_near_uniform(split: str) -> None:
    counts = planned(split, images=False)
    assert counts.min() >= 40
    assert counts.max() / counts.min() < 2


@pytest.mark.slow
def test_what_is_generated(tmp_path: Path) -> None:
    """Splits do not depend on each other's sizes, so the many unlabelled images are left out."""
    make_data(tmp_path, replace(LONGTAIL_60, num_unlabeled=100), workers=1)
    found = count(tmp_path)
    assert found.classes['rare'] >= 20
    assert found.classes['common'] >= 20
    assert found.classes['frequent'] >= 10
    assert found.fewest_instances['train'] >= 1
    assert min(found.fewest_instances[split] for split in SPLITS) >= 30


def test_counts_of_a_generated_set(tmp_path: Path) -> None:
    make_data(tmp_path, replace(TINY, num_unlabeled=8), workers=1)
    found = count(tmp_path)
    assert found.images == dict(train=60, hidden_unlabeled=8, tune=12, test=12)
    assert sum(found.classes.values()) == 12
    assert found.classes['rare'] > 0 and found.classes['common'] > 0
