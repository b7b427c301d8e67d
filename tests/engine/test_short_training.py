"""Which metric counts; cli/test_pilot.py and cli/test_tune.py train and resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_softpl.engine.short_training import main_metric, read_validations, train_or_resume


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (('student/longtail/segm_AP', 'teacher/longtail/segm_AP'), 'teacher/longtail/segm_AP'),
        (('coco/bbox_mAP', 'coco/segm_mAP'), 'coco/segm_mAP'),
        (('longtail/bbox_AP50', 'longtail/bbox_AP'), 'longtail/bbox_AP'),
    ],
)
def test_main_metric(names: tuple[str, ...], expected: str) -> None:
    metrics = {name: float(i) for i, name in enumerate(names)}
    assert main_metric(metrics) == (expected, metrics[expected])


def test_no_metric() -> None:
    with pytest.raises(ValueError, match='only loss'):
        main_metric(dict(loss=1.0))


def test_what_is_over_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / 'iter_5.pth').write_bytes(b'')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_5.pth'))
    # There is no model in this config: building one would fail.
    assert train_or_resume(Config(dict(train_cfg=dict(max_iters=5))), tmp_path).name == 'iter_5.pth'


def test_validations(tmp_path: Path) -> None:
    assert read_validations(tmp_path) == {}
    (tmp_path / 'validations.json').write_text(json.dumps({'5': {'a': 1.0}}))
    assert read_validations(tmp_path) == {5: {'a': 1.0}}
