"""A step of CalibratedSoftTeacher over every supported detector, and its state."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmdet_softpl.engine.burn_in_mean_teacher_hook import average_teacher, copy_teacher
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.batch_norm import check_statistics_moved, trains_batch_norm
from mmdet_softpl.models.roi_adapter import stages_of
from mmdet_softpl.models.silence import SILENT_ITERS
from tests.support.tiny import (
    GENEROUS,
    NUM_CLASSES,
    detector_config,
    multi_batch,
    semi_config,
    use_smoothed_head,
)
from tests.support.tiny_teacher import DETECTORS, tiny_teacher, total


@pytest.mark.parametrize('smoothed', [False, True])
@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.parametrize('label_mode', ['soft', 'hard'])
def test_trains_every_supported_detector(name: str, smoothed: bool, label_mode: str) -> None:
    soft = label_mode == 'soft'
    model = tiny_teacher(name, smoothed, label_mode=label_mode, student_correction=soft)
    before = [p.clone() for p in model.teacher.parameters()]
    for _ in range(2):
        losses = model.loss(*multi_batch())
        assert math.isfinite(float(total(losses)))
    prefix = 'unsup_s0.' if name.startswith('cascade') else 'unsup_'
    assert float(losses[f'{prefix}loss_cls']) > 0
    if name != 'faster-rcnn':
        assert float(losses[f'{prefix}loss_mask']) > 0
    total(losses).backward()
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all()
        for p in model.student.parameters()
        if p.requires_grad
    )
    assert all(p.grad is None for p in model.teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.teacher.parameters(), strict=True))
    assert model.class_state.kept.sum() > 0
    assert model.class_state.reliability[0].sum() > 0


@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.parametrize('smoothed', [False, True])
def test_supervised_losses_are_the_plain_detectors(name: str, smoothed: bool) -> None:
    model = tiny_teacher(name, smoothed, sup_weight=0.5).eval()
    inputs, samples = multi_batch()
    torch.manual_seed(3)
    expected = model.student.loss(inputs['sup'], copy.deepcopy(samples['sup']))
    torch.manual_seed(3)
    model.unsup_scale = 0.0
    losses = model.loss(inputs, samples)
    assert all(key.startswith('sup_') for key in losses)
    for key, value in expected.items():
        factor = 0.5 if 'loss' in key else 1.0
        values = value if isinstance(value, list) else [value]
        found = losses[f'sup_{key}']
        for a, b in zip(values, found if isinstance(found, list) else [found], strict=True):
            torch.testing.assert_close(b, a * factor)


@pytest.mark.parametrize('name', DETECTORS)
def test_an_unlabelled_image_without_objects_costs_nothing(name: str) -> None:
    model = tiny_teacher(name, score_thr=1.0, objectness_thr=1.0)
    losses = model.loss(*multi_batch())
    unsup = {k: v for k, v in losses.items() if k.startswith('unsup') and 'loss' in k}
    assert unsup
    for value in unsup.values():
        assert float(value if torch.is_tensor(value) else sum(value)) == 0
    total(losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.student.parameters() if p.requires_grad)


@pytest.mark.parametrize('name', DETECTORS)
def test_no_proposal_at_all(name: str) -> None:
    """A rank may get neither a proposal nor a labelled box."""
    model = tiny_teacher(name)
    for network in (model.student, model.teacher):
        network.train_cfg.rpn_proposal.min_bbox_size = 10000
        network.test_cfg.rpn.min_bbox_size = 10000
        network.rpn_head.test_cfg.min_bbox_size = 10000
    inputs, samples = multi_batch()
    for sample in samples['sup']:
        sample.gt_instances = sample.gt_instances[:0]
    losses = model.loss(inputs, samples)
    assert math.isfinite(float(total(losses)))
    total(losses).backward()


def test_calibration_follows_the_reliability() -> None:
    model = tiny_teacher(calibration='histogram')
    state = model.class_state
    count = torch.full((NUM_CLASSES, state.calibration.shape[1]), 1000.0)
    centres = (torch.arange(count.shape[1]) + 0.5) / count.shape[1]
    state.new_reliability.copy_(torch.stack([count, 0.5 * count * centres, count * centres]))
    model.refresh_calibration()
    torch.testing.assert_close(
        state.calibration, (0.5 * centres).expand_as(state.calibration), rtol=0.05, atol=0.01
    )
    assert state.new_reliability.sum() == 0


@pytest.mark.parametrize(('held_out', 'decay'), [(False, 0.5), (True, 0.0)])
def test_what_a_refresh_keeps_of_earlier_counts(held_out: bool, decay: float) -> None:
    """Of labelled batches half of it; a held-out part is counted whole every time."""
    model = tiny_teacher()
    model.held_out = held_out
    state = model.class_state
    first, second = (torch.rand_like(state.reliability) for _ in range(2))
    for counts in (first, second):
        state.new_reliability.copy_(counts)
        model.refresh_calibration()
        assert not state.new_reliability.any()
    torch.testing.assert_close(state.reliability, decay * first + second)


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
@pytest.mark.parametrize('smoothed', [False, True])
@pytest.mark.parametrize('held_out', [False, True])
@pytest.mark.parametrize('mode', ['histogram', 'none'])
def test_smoothing_is_taken_out_where_calibration_cannot_see_it(
    name: str, smoothed: bool, held_out: bool, mode: str
) -> None:
    # Student-side correction refreshes without a calibration, too.
    model = tiny_teacher(name, smoothed=smoothed, calibration=mode, student_correction=True)
    model.held_out = held_out
    assert model.class_state.confidence_gain == 1
    model.refresh_calibration()
    expected = 1 / (1 - 0.1) if smoothed and not held_out and mode != 'none' else 1.0
    torch.testing.assert_close(float(model.class_state.confidence_gain), expected)


@pytest.mark.parametrize('held_out', [False, True])
@pytest.mark.parametrize('mode', ['histogram', 'temperature'])
def test_only_held_out_images_may_raise_a_score(mode: str, held_out: bool) -> None:
    model = tiny_teacher(calibration=mode)
    model.held_out = held_out
    state = model.class_state
    count = torch.full((NUM_CLASSES, state.calibration.shape[1]), 1000.0)
    centres = (torch.arange(count.shape[1]) + 0.5) / count.shape[1]
    # Twice as often right as the scores say below 0.4, half as often above.
    correct = torch.where(centres < 0.4, 2 * centres, centres / 2)
    if mode == 'temperature':
        correct = centres.sqrt()
    state.new_reliability.copy_(torch.stack([count, count * correct, count * centres]))
    model.refresh_calibration()
    low, high = centres < 0.3, centres > 0.6
    raised = state.calibration - centres
    if held_out:
        assert (raised[:, low] > 0.05).any()
    else:
        assert raised.abs()[:, low].max() < 1e-6
    if mode == 'histogram':
        assert (raised[:, high] < -0.05).all()


def test_offsets_step_by_the_log_of_expected_over_observed() -> None:
    model = tiny_teacher(calibration='none', student_correction=True)
    state = model.class_state
    counts = torch.full((2, NUM_CLASSES), 1e5)
    counts[0, 1] *= 2
    state.offset_counts.copy_(counts)
    model.refresh_calibration()
    torch.testing.assert_close(state.offsets[1], torch.tensor(math.log(2)), rtol=0.01, atol=0.01)
    assert state.offsets[[0, 2, 3, 4]].abs().max() < 0.01
    assert state.offset_counts.sum() == 0
    for _ in range(5):
        state.offset_counts.copy_(counts)
        model.refresh_calibration()
    assert state.offsets[1] == 2.0


def test_an_intended_boost_is_no_error_that_offsets_correct() -> None:
    """What labelled images are expected to hold is counted without the boost that labels carry."""
    boosts = torch.tensor([4.0, 1.0, 1.0, 1.0, 2.0])
    inputs, samples = multi_batch()
    counts = {}
    for name in ('plain', 'wanted', 'boosted'):
        torch.manual_seed(0)
        model = tiny_teacher(score_floor=0.0, refresh_interval=100, calibration='none')
        state = model.class_state
        if name != 'plain':
            state.boosts.copy_(boosts)
        if name == 'wanted':
            state.wanted_boosts.copy_(boosts)
        model.observe_labelled(inputs['sup'], samples['sup'])
        counts[name] = state.offset_counts.clone()
        assert 'class_state.wanted_boosts' not in model.state_dict()
    # Of the class that is boosted most there is more in the labels, and no more once it is meant.
    assert counts['boosted'][0, 0] > 1.3 * counts['plain'][0, 0]
    assert counts['wanted'][0, 0] < 1.1 * counts['plain'][0, 0]
    assert counts['wanted'][1].equal(counts['boosted'][1])


def test_without_correction_the_offsets_stay_zero() -> None:
    model = tiny_teacher(student_correction=False)
    model.loss(*multi_batch())
    model.loss(*multi_batch())
    assert model.class_state.reliability.sum() > 0
    assert not model.class_state.offsets.any()


def unsupervised(model: CalibratedSoftTeacher) -> dict[str, torch.Tensor]:
    """Losses of one batch, with the same RoI samples every time."""
    torch.manual_seed(3)
    losses = model.loss(*copy.deepcopy(multi_batch()))
    return {
        key: torch.stack(value if isinstance(value, list) else [value]).detach()
        for key, value in losses.items()
        if key.startswith('unsup') and 'loss' in key
    }


def test_offsets_are_a_bias_of_the_students_logits_in_training() -> None:
    model = tiny_teacher('faster-rcnn', smoothed=False)
    offset = torch.tensor([0.5, -1.0, 0.0, 1.5, 0.2])
    plain = unsupervised(model)['unsup_loss_cls']
    biased = copy.deepcopy(model)
    with torch.no_grad():
        biased.student.roi_head.bbox_head.fc_cls.bias[:-1] += offset
    model.class_state.offsets.copy_(offset)
    found = unsupervised(model)['unsup_loss_cls']
    assert abs(found - plain) > 1e-3
    torch.testing.assert_close(found, unsupervised(biased)['unsup_loss_cls'])


@pytest.mark.parametrize('label_mode', ['soft', 'hard'])
def test_hard_labels_are_not_calibrated(label_mode: str) -> None:
    model = tiny_teacher(label_mode=label_mode, student_correction=False)
    plain = unsupervised(model)['unsup_loss_cls']
    model.class_state.calibration.mul_(0.5)
    changed = unsupervised(model)['unsup_loss_cls']
    assert torch.equal(plain, changed) == (label_mode == 'hard')


def test_the_unsupervised_loss_is_weighted() -> None:
    model = tiny_teacher(unsup_weight=1.0)
    plain = unsupervised(model)
    model.semi_train_cfg['unsup_weight'] = 3.0
    model.unsup_scale = 0.25
    weighted = unsupervised(model)
    assert len(plain) >= 5
    for key, value in plain.items():
        assert value.abs().sum() > 0, key
        torch.testing.assert_close(weighted[key], 0.75 * value)


def test_a_held_out_part_alone_is_what_a_hook_calibrates_on() -> None:
    """The detector's own refresh would empty what the hook has filled."""
    model = tiny_teacher(refresh_interval=1, calibration_interval=1)
    model.held_out = True
    state = model.class_state
    state.reliability.uniform_()
    state.calibration.uniform_()
    before = state.reliability.clone(), state.calibration.clone()
    for _ in range(2):
        model.loss(*multi_batch())
    assert torch.equal(state.reliability, before[0]) and torch.equal(state.calibration, before[1])
    assert not state.new_reliability.any() and not state.offset_counts.any()


def test_labelled_objects_are_counted_once_whatever_class_the_teacher_gives() -> None:
    model = tiny_teacher(score_floor=0.0, refresh_interval=100)
    inputs, samples = multi_batch()
    model.observe_labelled(inputs['sup'], samples['sup'])
    expected, observed = model.class_state.offset_counts
    labels = torch.cat([sample.gt_instances.labels for sample in samples['sup']])
    assert (observed <= torch.bincount(labels, minlength=NUM_CLASSES)).all()
    assert observed.sum() > 0
    assert expected.sum() > 0


def test_a_missing_homography_is_named() -> None:
    model = tiny_teacher(score_thr=0.1)
    inputs, samples = multi_batch()
    for sample in samples['unsup_student']:
        sample.pop('homography_matrix')
    with pytest.raises(KeyError, match=r'homography_matrix.*meta_keys'):
        model.loss(inputs, samples)


def test_silence_is_explained_once_in_a_thousand_iterations(caplog) -> None:
    model = tiny_teacher(score_thr=0.95, objectness_thr=1.0)
    inputs, samples = multi_batch()
    model._silence.iters = SILENT_ITERS - 2
    from mmengine.logging import MMLogger

    messages: list[str] = []
    logger = MMLogger.get_current_instance()
    original, logger.warning = logger.warning, messages.append
    try:
        for _ in range(4):
            model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    finally:
        logger.warning = original
    assert len(messages) == 1
    assert '1000 iterations' in messages[0]
    assert '0.950' in messages[0]


def test_trainable_batch_norm_is_noticed() -> None:
    assert not tiny_teacher().has_trainable_batch_norm
    detector = detector_config()
    detector.backbone.norm_eval = False
    model = MODELS.build(semi_config(detector))
    assert model.has_trainable_batch_norm
    assert not model.teacher.training


def test_a_teacher_without_batch_statistics_is_noticed_at_once() -> None:
    detector = detector_config()
    detector.backbone.norm_eval = False
    model = MODELS.build(semi_config(detector, **GENEROUS)).train()
    # As mmdet's hook does: parameters, but no buffers.
    with torch.no_grad():
        pairs = zip(model.teacher.parameters(), model.student.parameters(), strict=True)
        for parameter, own in pairs:
            parameter.copy_(own)
    for _ in range(2):
        model.loss(*multi_batch())
    with pytest.raises(RuntimeError, match=r'teacher\.backbone.*BurnInMeanTeacherHook'):
        model.loss(*multi_batch())
    # A hook that copies buffers, but has not come to it yet.
    model.teacher_has_buffers, model._iter = True, 2
    model.loss(*multi_batch())
    copy_teacher(model.student, model.teacher)
    model.teacher_has_buffers, model._iter = False, 2
    model.loss(*multi_batch())


@pytest.mark.parametrize('name', ['faster-rcnn', 'cascade-mask-rcnn'])
def test_a_teacher_that_no_hook_updates_is_noticed_at_once(name: str) -> None:
    model = MODELS.build(semi_config(detector_config(name), **GENEROUS)).train()
    weights = copy.deepcopy(model.state_dict())
    for _ in range(2):
        model.loss(*multi_batch())
    with pytest.raises(RuntimeError, match=r'no hook makes it follow.*BurnInMeanTeacherHook'):
        model.loss(*multi_batch())
    # A student that has learned since the hook made the teacher its copy.
    model._iter = 2
    copy_teacher(model.student, model.teacher)
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter += 0.2 * parameter.std(unbiased=False) * torch.randn_like(parameter)
    model.loss(*multi_batch())
    # Both began as one detector of other classes, whose classifier neither could take over.
    for stage in stages_of(model.teacher.roi_head):
        stage.bbox_head.fc_cls.reset_parameters()
    model._iter = 2
    with pytest.raises(RuntimeError, match='no hook makes it follow'):
        model.loss(*multi_batch())
    # Weights of another part that somebody gave.
    part = {key: value for key, value in weights.items() if 'rpn_head' in key}
    model.load_state_dict(part, strict=False)
    model._iter = 2
    with pytest.raises(RuntimeError, match='no hook makes it follow'):
        model.loss(*multi_batch())
    # Weights that somebody gave, which need not be the student's.
    weights['num_iters'].fill_(2)
    model.load_state_dict(weights)
    model.loss(*multi_batch())


def test_batch_norm_of_another_make_is_one() -> None:
    """mmcv's SyncBatchNorm does not descend from torch's."""

    class OtherNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer('running_mean', torch.zeros(2))
            self.register_buffer('running_var', torch.ones(2))
            self.register_buffer('num_batches_tracked', torch.tensor(0))

    network = torch.nn.Sequential(OtherNorm()).train()
    assert trains_batch_norm(network) and not trains_batch_norm(torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r'teacher\.0 has batch norm'):
        check_statistics_moved(network)
    student = copy.deepcopy(network)
    student[0].running_mean += 1
    student[0].num_batches_tracked += 8
    average_teacher(student, network, 0.25)
    assert network[0].running_mean.tolist() == [0.25, 0.25]
    assert int(network[0].num_batches_tracked) == 8
    check_statistics_moved(network)


def test_the_teacher_predicts_unless_something_else_is_asked_for() -> None:
    """mmdet's TeacherStudentValLoop puts back what it found, None where there was nothing."""
    cfg = semi_config(detector_config(), **GENEROUS)
    for asked, expected in ((None, 'teacher'), ({}, 'teacher'), (dict(predict_on='student'),) * 2):
        model = MODELS.build(dict(cfg, semi_test_cfg=asked))
        expected = expected if isinstance(expected, str) else expected['predict_on']
        assert model.semi_test_cfg['predict_on'] == expected


def test_without_a_labeller_thresholds_are_those_of_the_config() -> None:
    """Also where a checkpoint holds others: of a hook, or of another ``score_thr``."""
    trained = tiny_teacher(score_thr=0.9)
    state = trained.class_state
    state.boosts[0], state.thresholds[1], state.prototype_weights[2] = 4, 0.8, 0.3
    for has_labeller in (True, False):
        model = tiny_teacher(score_thr=0.2)
        model.load_state_dict(trained.state_dict())
        # What looks at a checkpoint wants to know what it labelled by.
        torch.testing.assert_close(model.class_state.thresholds, state.thresholds)
        model.has_labeller = has_labeller
        model.loss(*multi_batch())
        own = state if has_labeller else tiny_teacher(score_thr=0.2).class_state
        for name in ('boosts', 'thresholds', 'prototype_weights', 'groups'):
            assert torch.equal(getattr(model.class_state, name), getattr(own, name))


def test_an_empty_branch_is_named_before_the_batch_is_stacked() -> None:
    model = tiny_teacher()
    image, sample = torch.zeros(3, 32, 32), DetDataSample()
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    # What mmdet's MultiBranch and collate leave of two labelled images.
    batch = {
        key: {name: [value if name == 'sup' else None] * 2 for name in branches}
        for key, value in (('inputs', image), ('data_samples', sample))
    }
    with pytest.raises(KeyError, match=r"branch 'unsup_teacher' \(it has \['sup'\]\).*batch_size"):
        model.data_preprocessor(batch, True)
    plain = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), False)
    assert plain['inputs'].shape[0] == 1


def test_the_teacher_stays_in_evaluation_mode() -> None:
    model = tiny_teacher().train()
    assert model.student.training
    assert not any(module.training for module in model.teacher.modules())


def test_bfloat16_autocast_trains() -> None:
    model = tiny_teacher()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*multi_batch())
    total(losses).backward()
    assert math.isfinite(float(total(losses)))
    assert float(losses['unsup_loss_mask']) > 0


def test_view_geometry_does_not_matter_for_the_projected_boxes() -> None:
    """A flip there and back gives the boxes of the identity."""
    from mmdet_softpl.models.student_losses import project
    from tests.support.tiny import data_sample

    model = tiny_teacher()
    inputs, samples = multi_batch(flip=False)
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    same = project(view, samples['unsup_teacher'], samples['unsup_student'])
    matrix = np.array([[-1, 0, 96], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    flipped = [data_sample(96, 0, homography=matrix) for _ in range(2)]
    other = project(view, samples['unsup_teacher'], flipped)
    for a, b in zip(same.bboxes, other.bboxes, strict=True):
        mirrored = torch.stack([96 - a[:, 2], a[:, 1], 96 - a[:, 0], a[:, 3]], 1)
        torch.testing.assert_close(b, mirrored, rtol=1e-4, atol=1e-3)


def test_detections_on_crowd_regions_are_not_judged() -> None:
    model = tiny_teacher(score_floor=0.0)
    inputs, samples = multi_batch()
    model.observe_labelled(inputs['sup'], samples['sup'])
    counted = model.class_state.new_reliability[0].sum()
    assert counted > 0
    model.class_state.clear('new_reliability', 'offset_counts')
    everywhere = torch.tensor([[0.0, 0.0, 96.0, 96.0]]).repeat(NUM_CLASSES, 1)
    for sample in samples['sup']:
        sample.gt_instances = sample.gt_instances[:0]
        sample.ignored_instances = InstanceData(bboxes=everywhere, labels=torch.arange(NUM_CLASSES))
    model.observe_labelled(inputs['sup'], samples['sup'])
    assert model.class_state.new_reliability.sum() == 0
    assert model.class_state.offset_counts.sum() == 0


def test_ddp_leaves_the_ranks_statistics_alone() -> None:
    model = tiny_teacher()
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    names = {name for name, _ in model.named_buffers()}
    assert ignored <= names
    assert {'num_iters', 'class_state.kept', 'student.roi_head.bbox_head.feature_sums'} <= ignored
    assert not any('running_mean' in name for name in ignored)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_does_not_move_rois(dtype: torch.dtype) -> None:
    """At 1,332 pixels bfloat16 rounds to multiples of 8; float16 knows no area of 300 x 300."""
    model = tiny_teacher(smoothed=False)
    extractor = model.student.roi_head.bbox_roi_extractor
    seen: list[torch.Tensor] = []
    for layer in extractor.roi_layers:
        layer.register_forward_hook(lambda module, args, output: seen.append(args[1]))
    feats = [torch.randn(1, 16, size, size) for size in (336, 168, 84, 42)]
    rois = torch.tensor([[0, 1301.3, 17.6, 1333.9, 60.2], [0, 7.0, 9.0, 307.0, 309.0]])
    extractor([feat.to(dtype) for feat in feats], rois)
    whole = list(seen)
    extractor(feats, rois)
    assert [tuple(level.shape) for level in whole] == [tuple(level.shape) for level in seen[2:]]
    assert torch.equal(torch.cat(whole), rois)


def test_what_a_sampler_asks_the_head_is_no_training_step() -> None:
    """OHEM calls ``loss`` on candidates, and only as often as there are any."""
    detector = use_smoothed_head(detector_config(), warmup_iters=0, refresh_interval=1000)
    detector.train_cfg.rcnn.sampler = dict(
        type='OHEMSampler', num=16, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True
    )
    model = MODELS.build(semi_config(detector, **GENEROUS)).train()
    head = model.student.roi_head.bbox_head
    inputs, samples = multi_batch()
    losses = model.loss(inputs, samples)
    total(losses).backward()
    assert int(head.num_iters) == 1
    # At most a quarter of 16 RoIs an image are positive, and every one counts once.
    assert 0 < float(head.feature_counts.sum()) <= 4 * len(samples['sup'])


@pytest.mark.parametrize('absent', ['sup', 'unsup_teacher', 'unsup_student'])
def test_a_batch_without_a_branch_is_explained(absent: str) -> None:
    model = tiny_teacher()
    batch = [{k: v for k, v in part.items() if k != absent} for part in multi_batch()]
    with pytest.raises(KeyError, match=rf"branch '{absent}'.*MultiSourceSampler"):
        model.loss(*batch)
    model.unsup_scale = 0.0
    if absent != 'sup':
        model.loss(*batch)


def test_asking_for_batch_norm_leaves_every_mode_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 2, 1)).train()
    network[0].eval()
    assert trains_batch_norm(network)
    assert [module.training for module in network.modules()] == [True, False, True]
