"""Re-scoring of the host's instances: one scalar threshold acts per class."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_softpl.engine.host_adapter import HostLabeling, rescale_to_threshold
from mmdet_softpl.models.class_state import ClassState
from tests.support.tiny import NUM_CLASSES, multi_batch, soft_teacher_config


@pytest.mark.parametrize('scalar', [0.0, 0.5, 0.9, 1.0])
def test_scalar_threshold_acts_per_class(scalar: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(500, generator=generator)
    thresholds = torch.rand(500, generator=generator)
    new = rescale_to_threshold(scores, thresholds, scalar)
    assert torch.equal(new > scalar, (scores > thresholds) & (scalar < 1))
    assert new.min() >= 0 and new.max() <= 1


def test_map_is_monotone_and_the_identity_at_equal_thresholds() -> None:
    scores = torch.linspace(0, 1, 101)
    torch.testing.assert_close(rescale_to_threshold(scores, torch.full((101,), 0.6), 0.6), scores)
    new = rescale_to_threshold(scores, torch.full((101,), 0.3), 0.9)
    assert (new[1:] > new[:-1]).all()
    assert rescale_to_threshold(scores[:0], scores[:0], 0.9).shape == (0,)


@pytest.mark.parametrize('edge', [0.0, 1.0])
def test_extreme_thresholds_stay_finite(edge: float) -> None:
    new = rescale_to_threshold(torch.linspace(0, 1, 11), torch.full((11,), edge), 0.7)
    assert torch.isfinite(new).all()


def test_rescore_boosts_records_and_maps() -> None:
    init_default_scope('mmdet')
    detector = MODELS.build(soft_teacher_config())
    state = ClassState(NUM_CLASSES, 0.7)
    state.boosts[:] = torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0])
    state.thresholds[:] = torch.tensor([0.5, 0.8, 0.7, 0.7, 0.7])
    labeling = HostLabeling(detector, state)
    found = InstanceData(
        bboxes=torch.zeros(3, 4),
        labels=torch.tensor([0, 0, 1]),
        scores=torch.tensor([0.3, 0.2, 0.75]),
    )
    new = labeling.rescore(found).scores
    # 0.3 * 2 = 0.6 > 0.5; 0.2 * 2 = 0.4 < 0.5; 0.75 < 0.8
    assert (new > 0.9).tolist() == [True, False, False]
    assert state.kept.tolist() == [1, 0, 0, 0, 0]
    assert state.score_histogram.sum() == 3
    assert state.num_images == 1
    raw = InstanceData(bboxes=torch.zeros(2, 20), scores=torch.zeros(2, 6))
    assert labeling.rescore(raw) is raw
    assert state.num_images == 1


def test_only_labelling_is_re_scored() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = MODELS.build(soft_teacher_config())
    detector.teacher.test_cfg.rcnn.score_thr = 0.0
    detector.teacher.roi_head.test_cfg.score_thr = 0.0
    state = ClassState(NUM_CLASSES, 0.7)
    inputs, samples = multi_batch()
    detector.teacher.eval()
    plain = detector.teacher.predict(inputs['unsup_teacher'], samples['unsup_teacher'])
    plain = [sample.pred_instances.scores.clone() for sample in plain]
    labeling = HostLabeling(detector, state)
    labeling.attach()
    detector.get_pseudo_instances(inputs['unsup_teacher'], samples['unsup_teacher'])
    assert state.num_images == 2
    again = detector.teacher.predict(inputs['unsup_teacher'], samples['unsup_teacher'])
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b.pred_instances.scores)
    assert state.num_images == 2
    labeling.detach()
    detector.get_pseudo_instances(inputs['unsup_teacher'], samples['unsup_teacher'])
    assert state.num_images == 2


@pytest.mark.parametrize('num_classes', [NUM_CLASSES - 1, NUM_CLASSES + 1])
@pytest.mark.parametrize('stages', [1, 2])
def test_a_head_of_other_classes_is_refused(stages: int, num_classes: int) -> None:
    """Its training would index past the end, or learn nothing of the last classes."""
    init_default_scope('mmdet')
    detector = MODELS.build(soft_teacher_config())
    if stages == 2:
        detector.teacher.roi_head.bbox_head.num_classes = num_classes
    else:
        detector.teacher.roi_head = None
        detector.teacher.bbox_head = torch.nn.Module()
        detector.teacher.bbox_head.predict = None
        detector.teacher.bbox_head.num_classes = num_classes
    with pytest.raises(ValueError, match=f'num_classes={num_classes}.*{NUM_CLASSES} classes'):
        HostLabeling(detector, ClassState(NUM_CLASSES, 0.7))


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match='Linear'):
        HostLabeling(torch.nn.Linear(1, 1), ClassState(2, 0.5))


def test_a_missing_scalar_threshold_is_named() -> None:
    init_default_scope('mmdet')
    cfg = soft_teacher_config()
    del cfg['semi_train_cfg']['cls_pseudo_thr']
    with pytest.raises(ValueError, match='cls_pseudo_thr'):
        HostLabeling(MODELS.build(cfg), ClassState(NUM_CLASSES, 0.5))
