"""The audit's records against numbers set by hand."""

from __future__ import annotations

import json

import numpy as np
import torch

from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.engine.audit import build_audit
from mmdet_softpl.models.class_state import CONFIDENCE_BINS, ClassState


def audit(total_images: float = 10.0) -> dict:
    statistics = ClassStatistics(
        classes=('ant', 'bee', 'cat'),
        image_counts=np.array([1, 50, 500]),
        instance_counts=np.array([2, 60, 900]),
        num_images=1000,
        num_labelled_images=1000,
        groups=('r', 'c', 'f'),
        source='file',
    )
    state = ClassState(3, 0.5)
    state.groups[:] = torch.tensor([0, 1, 2])
    state.boosts[0] = 2.5
    # Bin 14 lies above the threshold, bin 0 below it.
    state.reliability[:, 1, 14] = torch.tensor([8.0, 6.0, 7.5])
    state.reliability[:, 1, 0] = torch.tensor([100.0, 0.0, 3.0])
    state.reliability[:, 2, 0] = torch.tensor([100.0, 50.0, 3.0])
    assert CONFIDENCE_BINS == 15
    return build_audit(
        statistics,
        state,
        total_kept=torch.tensor([0.0, 5.0, 40.0], dtype=torch.float64),
        total_images=total_images,
        damped=torch.tensor([0, 2, 0]),
        labelled_rate=torch.tensor([0.002, 0.06, 0.9]),
        labeled_ann_file='train.json',
    )


def test_records() -> None:
    ant, bee, cat = audit()['classes']
    assert ant['group'] == 'rare'
    assert ant['boost'] == 2.5
    assert (bee['kept'], bee['kept_per_image'], bee['times_damped']) == (5, 0.5, 2)
    assert cat['labelled_instances'] == 900
    assert abs(cat['expected_per_image'] - 0.9) < 1e-6


def test_precision_is_that_above_the_threshold() -> None:
    assert [r['labelled_precision'] for r in audit()['classes']] == [None, 0.75, None]


def test_groups_and_totals() -> None:
    result = audit()
    assert result['groups']['rare'] == dict(classes=1, kept=0, never_labelled=['ant'])
    assert result['groups']['frequent'] == dict(classes=1, kept=40, never_labelled=[])
    assert result['unlabelled_images_seen'] == 10
    assert result['frequency_source'] == 'file'


def test_is_plain_json_and_survives_no_image() -> None:
    assert json.loads(json.dumps(audit(total_images=0)))['classes'][1]['kept_per_image'] == 5
