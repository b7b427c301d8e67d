"""CalibratedSoftTeacher over every supported detector, and what it refuses."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_softpl.engine import BurnInMeanTeacherHook, burn_in_mean_teacher_hook
from mmdet_softpl.engine.burn_in_mean_teacher_hook import copy_teacher
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.models.batch_norm import trains_batch_norm
from mmdet_softpl.models.calibrated_soft_teacher import SILENT_ITERS
from mmdet_softpl.models.teacher_labels import (
    TeacherView,
    add_masks,
    confidences_of,
    teacher_detect,
)
from tests.support.tiny import (
    GENEROUS,
    NUM_CLASSES,
    detector_config,
    lively,
    multi_batch,
    semi_config,
    use_smoothed_head,
)

DETECTORS = ('faster-rcnn', 'mask-rcnn', 'cascade-mask-rcnn')


@pytest.fixture(autouse=True)
def _scope() -> None:
    init_default_scope('mmdet')
    torch.manual_seed(0)


def build(name: str = 'mask-rcnn', smoothed: bool = True, **cfg: Any) -> CalibratedSoftTeacher:
    detector = detector_config(name)
    if smoothed:
        use_smoothed_head(detector, warmup_iters=0, refresh_interval=1)
    return lively(MODELS.build(semi_config(detector, **{**GENEROUS, **cfg})))


def total(losses: dict) -> torch.Tensor:
    parts = [v if torch.is_tensor(v) else sum(v) for k, v in losses.items() if 'loss' in k]
    return torch.stack([part.mean() for part in parts]).sum()


@pytest.mark.parametrize('smoothed', [False, True])
@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.parametrize('label_mode', ['soft', 'hard'])
def test_trains_every_supported_detector(name: str, smoothed: bool, label_mode: str) -> None:
    model = build(name, smoothed, label_mode=label_mode)
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
    model = build(name, smoothed, sup_weight=0.5).eval()
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
    model = build(name, score_thr=1.0, objectness_thr=1.0)
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
    model = build(name)
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


def test_teacher_labels_live_above_their_thresholds_and_have_masks() -> None:
    model = build()
    state = model.class_state
    state.thresholds[:] = torch.tensor([0.1, 0.2, 1.0, 0.2, 0.2])
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    for seen in view.detections:
        # What the student learns boxes from.
        sure = seen.objectness > model.labeling_cfg.objectness_thr
        assert len(seen) and (seen.kept | sure).all()
    kept = [seen[seen.kept] for seen in view.detections]
    assert sum(map(len, kept)) > 0
    for seen in kept:
        assert (seen.scores > state.thresholds[seen.labels]).all()
        assert (seen.labels != 2).all()
        assert seen.mask_probs.shape[1:] == (28, 28)
        assert ((seen.mask_probs >= 0) & (seen.mask_probs <= 1)).all()
        torch.testing.assert_close(seen.score_vectors.sum(1), torch.ones(len(seen)))
        picked = seen.score_vectors[torch.arange(len(seen)), seen.labels]
        torch.testing.assert_close(picked, seen.scores)
    assert state.kept.sum() == sum(map(len, kept))


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
def test_detections_are_the_hosts_own(name: str) -> None:
    """Prefilter, then NMS: the same boxes, classes, scores and masks as host's predict()."""
    model = build(name, score_floor=0.05, max_per_img=100)
    inputs, samples = multi_batch()
    model.eval()
    for cfg in (model.teacher.roi_head.test_cfg, model.teacher.test_cfg.rcnn):
        cfg.update(score_thr=0.05, max_per_img=100)
    view = teacher_detect(
        model.teacher, inputs['sup'], samples['sup'], model.class_state, model.labeling_cfg
    )
    host = model.teacher.predict(inputs['sup'], copy.deepcopy(samples['sup']), rescale=False)
    for seen, sample in zip(view.detections, host, strict=True):
        expected = sample.pred_instances
        order = expected.scores.argsort(descending=True, stable=True)
        expected = expected[order]
        large = ((expected.bboxes[:, 2:] - expected.bboxes[:, :2]) > 1).all(1)
        expected = expected[large]
        seen = seen[seen.scores.argsort(descending=True, stable=True)][: len(expected)]
        torch.testing.assert_close(seen.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(seen.bboxes, expected.bboxes, rtol=1e-3, atol=1e-2)
        assert (seen.labels == expected.labels).float().mean() > 0.98
    add_masks(model.teacher, TeacherView(view.feats, view.detections))
    assert view.detections[0].mask_probs.shape[0] == len(view.detections[0])


def test_a_boost_changes_the_class_not_the_objectness() -> None:
    model = build(score_floor=0.0)
    inputs, samples = multi_batch()
    plain = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    model.class_state.boosts[3] = 4.0
    boosted = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    share = [
        torch.cat([seen.score_vectors[:, 3] for seen in view.detections]).mean()
        for view in (plain, boosted)
    ]
    assert share[1] > 1.5 * share[0]


def test_confidences_are_calibrated_and_not_boosted() -> None:
    model = build(score_floor=0.0)
    state = model.class_state
    boosts = torch.tensor([8.0, 1, 0.5, 4, 1])
    state.boosts.copy_(boosts)
    # Calibrated: nine tenths of every score.
    state.calibration.mul_(0.9)
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    seen = InstanceData.cat(view.detections)
    assert len(seen)
    for i in range(len(seen)):
        foreground = seen.score_vectors[i, :-1]
        own = foreground / boosts
        own = own / own.sum() * foreground.sum()
        label = int(seen.labels[i])
        torch.testing.assert_close(seen.own_scores[i], own[label], rtol=1e-4, atol=1e-6)
        ratio = seen.target_scores[i] / seen.scores[i]
        torch.testing.assert_close(seen.confidences[i], own[label] * ratio, rtol=1e-4, atol=1e-6)
    middle = (seen.scores > 1 / 15) & (seen.scores < 14 / 15)
    assert middle.any()
    torch.testing.assert_close(seen.target_scores[middle], 0.9 * seen.scores[middle])
    assert (seen.confidences[seen.labels == 0] < seen.target_scores[seen.labels == 0]).all()


@pytest.mark.parametrize('count', [0, 1, 3])
def test_confidences_without_a_boost_are_the_calibrated_scores(count: int) -> None:
    scores = torch.tensor([0.2, 0.7, 1.0])[:count]
    calibrated = torch.tensor([0.1, 0.9, 1.0])[:count]
    torch.testing.assert_close(confidences_of(scores, scores, calibrated), calibrated)
    # Never more than certain, and nothing of what the network does not see at all.
    raised = confidences_of(scores, scores / 2, calibrated)
    assert (raised <= 1).all()
    assert not confidences_of(torch.zeros(count), scores, calibrated).any()


def test_prototype_evidence_moves_labels() -> None:
    model = build(score_floor=0.0)
    head = model.teacher.roi_head.bbox_head
    inputs, samples = multi_batch()
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    head.prototype_counts.fill_(10)
    features = head.penultimate_features
    # Class 2 looks like everything in these images, the others like its opposite.
    centre = features.mean(0)
    head.prototypes.copy_(-centre.expand(NUM_CLASSES, -1))
    head.prototypes[2] = centre

    def share(weight: float) -> float:
        model.class_state.prototype_weights.fill_(weight)
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
        return float(torch.cat([d.score_vectors[:, 2] for d in view.detections]).mean())

    assert share(1.0) > 2 * share(0.0)


def test_calibration_follows_the_reliability() -> None:
    model = build(calibration='histogram')
    state = model.class_state
    count = torch.full((NUM_CLASSES, state.calibration.shape[1]), 1000.0)
    centres = (torch.arange(count.shape[1]) + 0.5) / count.shape[1]
    state.new_reliability.copy_(torch.stack([count, 0.5 * count * centres, count * centres]))
    model.refresh_calibration()
    torch.testing.assert_close(
        state.calibration, (0.5 * centres).expand_as(state.calibration), rtol=0.05, atol=0.01
    )
    assert state.new_reliability.sum() == 0


@pytest.mark.parametrize('held_out', [False, True])
@pytest.mark.parametrize('mode', ['histogram', 'temperature'])
def test_only_held_out_images_may_raise_a_score(mode: str, held_out: bool) -> None:
    model = build(calibration=mode)
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
    model = build(calibration='none', student_correction=True)
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
        model = build(score_floor=0.0, refresh_interval=100, calibration='none')
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


def test_soft_labels_alone_have_a_mass() -> None:
    inputs, samples = multi_batch()
    for mode in ('soft', 'hard'):
        model = build(label_mode=mode)
        view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
        objects = [d for d in view.detections if len(d)]
        assert objects
        mass = torch.zeros(NUM_CLASSES)
        for found in objects:
            for vector, label, confidence in zip(
                found.score_vectors, found.labels, found.target_scores, strict=True
            ):
                rest = 1 - vector[label]
                soft = vector[:-1] * (1 - confidence) / rest
                soft[label] = confidence
                mass += soft
        if mode == 'hard':
            mass.zero_()
        torch.testing.assert_close(model.class_state.mass, mass)


def test_without_correction_the_offsets_stay_zero() -> None:
    model = build(student_correction=False)
    model.loss(*multi_batch())
    model.loss(*multi_batch())
    assert model.class_state.reliability.sum() > 0
    assert not model.class_state.offsets.any()


def test_labelled_objects_are_counted_once_whatever_class_the_teacher_gives() -> None:
    model = build(score_floor=0.0, refresh_interval=100)
    inputs, samples = multi_batch()
    model.observe_labelled(inputs['sup'], samples['sup'])
    expected, observed = model.class_state.offset_counts
    labels = torch.cat([sample.gt_instances.labels for sample in samples['sup']])
    assert (observed <= torch.bincount(labels, minlength=NUM_CLASSES)).all()
    assert observed.sum() > 0
    assert expected.sum() > 0


def test_state_is_in_the_checkpoint_and_goes_on() -> None:
    a, b = build(), build()
    for _ in range(3):
        a.loss(*multi_batch())
    b.load_state_dict(a.state_dict())
    assert b._iter == a._iter == 3
    torch.manual_seed(5)
    first = a.loss(*multi_batch())
    torch.manual_seed(5)
    second = b.loss(*multi_batch())
    for key, value in first.items():
        if torch.is_tensor(value):
            torch.testing.assert_close(second[key], value)
    for key, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[key], value)


def test_a_plain_detectors_checkpoint_loads_into_both() -> None:
    model = build(smoothed=False)
    plain = MODELS.build(detector_config())
    result = model.load_state_dict(plain.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all('class_state' in key or key == 'num_iters' for key in result.missing_keys)
    for key, value in plain.state_dict().items():
        assert torch.equal(model.student.state_dict()[key], value)
        assert torch.equal(model.teacher.state_dict()[key], value)


@pytest.mark.parametrize('semi', [False, True])
def test_teacher_checkpoint_loads_into_the_teacher_alone(tmp_path, semi: bool) -> None:
    plain = MODELS.build(detector_config())
    state = plain.state_dict()
    if semi:
        state = {f'{part}.{k}': v for part in ('teacher', 'student') for k, v in state.items()}
    torch.save(dict(state_dict=state), tmp_path / 'teacher.pth')
    cfg = semi_config(detector_config(), **GENEROUS)
    model = MODELS.build(dict(cfg, teacher_checkpoint=str(tmp_path / 'teacher.pth')))
    model.init_weights()
    for key, value in plain.state_dict().items():
        assert torch.equal(model.teacher.state_dict()[key], value)
    assert not all(
        torch.equal(v, model.student.state_dict()[k]) for k, v in plain.state_dict().items()
    )


def test_a_checkpoint_of_other_classes_is_named(tmp_path) -> None:
    other = MODELS.build(detector_config(num_classes=3))
    model = build(smoothed=False)
    with pytest.raises(
        ValueError, match=r'bbox_head\.fc_cls\.weight has 4 outputs, 3 classes.*has 5 classes'
    ):
        model.load_state_dict(other.state_dict(), strict=False)
    # As part of another module, names have its prefix.
    whole = torch.nn.ModuleDict(dict(module=model))
    state = {
        f'module.{part}.{k}': v
        for part in ('teacher', 'student')
        for k, v in other.state_dict().items()
    }
    with pytest.raises(ValueError, match=r'fc_cls\.weight has 4 outputs'):
        whole.load_state_dict(state, strict=False)
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    cfg = semi_config(detector_config(), **GENEROUS)
    model = MODELS.build(dict(cfg, teacher_checkpoint=str(tmp_path / 'other.pth')))
    with pytest.raises(ValueError, match=r'other\.pth.*4 outputs'):
        model.init_weights()


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
@pytest.mark.parametrize('own', ['Linear', 'NormedLinear'])
@pytest.mark.parametrize('theirs', ['Linear', 'NormedLinear'])
def test_a_checkpoint_of_another_classifier_is_named(
    tmp_path, monkeypatch, name: str, own: str, theirs: str
) -> None:
    monkeypatch.setattr(burn_in_mean_teacher_hook, 'forget_labelling', lambda *args: None)

    def detector(layer: str) -> Any:
        cfg = detector_config(name)
        heads = cfg.roi_head.bbox_head
        for head in heads if isinstance(heads, list) else [heads]:
            head.cls_predictor_cfg = dict(type=layer)
        return cfg

    cfg = detector(theirs)
    # As mmengine writes it into checkpoints.
    beside = detector('Linear' if theirs == 'NormedLinear' else 'NormedLinear')
    meta = dict(cfg=Config(dict(detector=beside, model=cfg)).pretty_text)
    state = MODELS.build(cfg).state_dict()
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'plain.pth')
    semi = semi_config(detector(own), **GENEROUS)
    for i, silent in enumerate(({}, dict(cfg='no = config'), dict(cfg='(('))):
        path = str(tmp_path / f'silent{i}.pth')
        torch.save(dict(state_dict=state, meta=silent), path)
        MODELS.build(dict(semi, teacher_checkpoint=path)).init_weights()
    model = MODELS.build(dict(semi, teacher_checkpoint=str(tmp_path / 'plain.pth')))
    runner: Any = SimpleNamespace(model=model, hooks=[], _load_from='plain.pth')
    checkpoint = torch.load(tmp_path / 'plain.pth', weights_only=False)
    if own == theirs:
        model.init_weights()
        BurnInMeanTeacherHook().after_load_checkpoint(runner, checkpoint)
        return
    match = rf'plain\.pth.*is a {theirs} layer.*a {own} one.*type=.{theirs}'
    with pytest.raises(ValueError, match=match):
        model.init_weights()
    with pytest.raises(ValueError, match=match):
        BurnInMeanTeacherHook().after_load_checkpoint(runner, checkpoint)


def test_a_detector_of_other_classes_gives_all_but_its_heads(tmp_path) -> None:
    other = MODELS.build(use_smoothed_head(detector_config(num_classes=3)))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    detector = use_smoothed_head(detector_config())
    detector['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth'))
    model = MODELS.build(semi_config(detector, **GENEROUS))
    model.init_weights()
    given = other.state_dict()
    for network in (model.student, model.teacher):
        own = network.state_dict()
        fitting = {name for name, value in given.items() if value.shape == own[name].shape}
        assert all(torch.equal(own[name], given[name]) for name in fitting)
        left_out = {name.rsplit('.', 2)[1] for name in given.keys() - fitting if 'weight' in name}
        assert {'fc_cls', 'fc_reg', 'conv_logits'} <= left_out


def test_a_teacher_checkpoint_of_something_else_is_refused(tmp_path) -> None:
    """Frozen, a random teacher would label for the whole burn-in."""
    state = MODELS.build(detector_config()).state_dict()
    del state['rpn_head.rpn_conv.weight']
    for name, weights in (('part', state), ('other', {'foo.weight': torch.zeros(2)})):
        path = tmp_path / f'{name}.pth'
        torch.save(dict(state_dict=weights), path)
        model = MODELS.build(
            dict(semi_config(detector_config(), **GENEROUS), teacher_checkpoint=str(path))
        )
        with pytest.raises(ValueError, match=rf'{name}\.pth.*weights of the teacher'):
            model.init_weights()


def test_switched_off_means_off_after_a_checkpoint_that_had_it() -> None:
    trained = build()
    trained.class_state.calibration *= 0.5
    trained.class_state.offsets += 1
    fresh = build().class_state
    for cfg, kept in ((dict(calibration='none'), 'offsets'), ({}, 'calibration')):
        off = build(**cfg, student_correction=kept == 'offsets')
        off.load_state_dict(trained.state_dict())
        for name in ('calibration', 'offsets'):
            source = trained.class_state if name == kept else fresh
            assert torch.equal(getattr(off.class_state, name), getattr(source, name))


def test_a_checkpoint_without_a_classifier_is_of_no_other_layer() -> None:
    """An RPN, or a backbone: its config names no classifier because it has none."""
    cfg = detector_config()
    cfg.roi_head.bbox_head.cls_predictor_cfg = dict(type='NormedLinear')
    model = MODELS.build(semi_config(cfg, **GENEROUS))
    runner: Any = SimpleNamespace(
        model=model, hooks=[], _load_from='rpn.pth', _resume=False, _has_loaded=False
    )
    weights = {'rpn_head.rpn_conv.weight': torch.zeros(1)}
    meta = dict(cfg="model = dict(type='RPN')")
    BurnInMeanTeacherHook().after_load_checkpoint(runner, dict(state_dict=weights, meta=meta))


def test_test_time_augmentation_loads_a_checkpoint() -> None:
    """It wraps the model, while the hooks of the training are still in the config."""
    model = MODELS.build(semi_config(detector_config(), **GENEROUS))
    wrapped = torch.nn.Module()
    wrapped.module = model
    runner: Any = SimpleNamespace(model=wrapped, hooks=[], _load_from='iter_1.pth')
    state = model.state_dict()
    BurnInMeanTeacherHook().after_load_checkpoint(runner, dict(state_dict=state))
    assert state.keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ('augment', 'refused'),
    [
        (dict(type='BatchResize', scale=(64, 64)), True),
        (dict(type='BatchSyncRandomResize', random_size_range=(64, 128), size_divisor=32), True),
        (dict(type='BatchFixedSizePad', size=(128, 128)), False),
    ],
)
def test_augmentations_of_a_batch_that_resize_are_refused(augment: dict, refused: bool) -> None:
    cfg = semi_config(detector_config(), **GENEROUS)
    cfg['data_preprocessor']['data_preprocessor']['batch_augments'] = [augment]
    if refused:
        with pytest.raises(ValueError, match=f'{augment["type"]} of data_preprocessor'):
            MODELS.build(cfg)
    else:
        MODELS.build(cfg)


def test_a_missing_teacher_checkpoint_is_named_at_construction() -> None:
    with pytest.raises(FileNotFoundError, match='nowhere'):
        MODELS.build(dict(semi_config(detector_config()), teacher_checkpoint='nowhere.pth'))


@pytest.mark.parametrize(
    'cfg, words',
    [
        (dict(label_mode='fuzzy'), ['fuzzy', "'soft'", "'hard'"]),
        (dict(calibration='platt'), ['platt', "'histogram'", "'group_temperature'"]),
        (dict(score_thr=1.2), ['score_thr', '1.2']),
        (dict(score_floor=-0.1), ['score_floor', '-0.1']),
        (dict(iou_thr=0.0), ['iou_thr', '0.0']),
        (dict(mirror='False'), ['mirror', "'False'"]),
        (dict(student_correction='False'), ['student_correction', "'False'"]),
        (dict(unsup_weight=-1), ['unsup_weight', '-1']),
        (dict(refresh_interval=0), ['refresh_interval', '0']),
        (dict(max_per_img=0), ['max_per_img']),
        (dict(max_per_img=50.0), ['max_per_img', '50.0', 'whole']),
        (dict(refresh_interval=2.5), ['refresh_interval', '2.5']),
        (dict(cls_pseudo_thr=0.9), ['cls_pseudo_thr', 'score_thr']),
    ],
)
def test_bad_settings_are_named_at_construction(cfg: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        MODELS.build(semi_config(detector_config(), **cfg))
    for word in words:
        assert word in str(error.value)


def test_an_unknown_key_of_the_test_settings_is_named() -> None:
    cfg = dict(semi_config(detector_config()), semi_test_cfg=dict(predict='student'))
    with pytest.raises(ValueError, match=r"semi_test_cfg='predict'.*'predict_on'"):
        MODELS.build(cfg)


def test_a_one_stage_detector_is_refused() -> None:
    from mmengine.config import Config

    base = Config.fromstring(
        "_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py']\n", file_format='.py'
    )
    base.model.backbone.init_cfg = None
    with pytest.raises(ValueError, match=r'two-stage.*RetinaNet'):
        MODELS.build(semi_config(base.model))


def test_heads_with_another_loss_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    with pytest.raises(ValueError, match='FocalLoss'):
        MODELS.build(semi_config(detector))
    # Cross entropy on one output per RoI: there is nothing to be soft about.
    detector.roi_head.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_mask=True)
    with pytest.raises(ValueError, match='use_sigmoid=False'):
        MODELS.build(semi_config(detector))


def test_a_missing_homography_is_named() -> None:
    model = build(score_thr=0.1)
    inputs, samples = multi_batch()
    for sample in samples['unsup_student']:
        sample.pop('homography_matrix')
    with pytest.raises(KeyError, match=r'homography_matrix.*meta_keys'):
        model.loss(inputs, samples)


def test_silence_is_explained_once_in_a_thousand_iterations(caplog) -> None:
    model = build(score_thr=0.95, objectness_thr=1.0)
    inputs, samples = multi_batch()
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    model._silent_iters = SILENT_ITERS - 2
    from mmengine.logging import MMLogger

    messages: list[str] = []
    logger = MMLogger.get_current_instance()
    original, logger.warning = logger.warning, messages.append
    try:
        for _ in range(4):
            model._warn_if_silent(view)
    finally:
        logger.warning = original
    assert len(messages) == 1
    assert '1000 iterations' in messages[0]
    assert '0.950' in messages[0]


def test_trainable_batch_norm_is_noticed() -> None:
    assert not build().has_trainable_batch_norm
    detector = detector_config()
    detector.backbone.norm_eval = False
    model = MODELS.build(semi_config(detector))
    assert model.has_trainable_batch_norm
    assert not model.teacher.training


def test_a_teacher_without_batch_statistics_is_noticed_at_once() -> None:
    detector = detector_config()
    detector.backbone.norm_eval = False
    model = MODELS.build(semi_config(detector, **GENEROUS)).train()
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


def test_the_teacher_stays_in_evaluation_mode() -> None:
    model = build().train()
    assert model.student.training
    assert not any(module.training for module in model.teacher.modules())


def test_bfloat16_autocast_trains() -> None:
    model = build()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*multi_batch())
    total(losses).backward()
    assert math.isfinite(float(total(losses)))
    assert float(losses['unsup_loss_mask']) > 0


def test_view_geometry_does_not_matter_for_the_projected_boxes() -> None:
    """A flip there and back gives the boxes of the identity."""
    from mmdet_softpl.models.student_losses import project
    from tests.support.tiny import data_sample

    model = build()
    inputs, samples = multi_batch(flip=False)
    view = model.label(inputs['unsup_teacher'], samples['unsup_teacher'], record=False)
    same = project(view, samples['unsup_teacher'], samples['unsup_student'])
    matrix = np.array([[-1, 0, 96], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    flipped = [data_sample(96, 0, homography=matrix) for _ in range(2)]
    other = project(view, samples['unsup_teacher'], flipped)
    for a, b in zip(same.bboxes, other.bboxes, strict=True):
        mirrored = torch.stack([96 - a[:, 2], a[:, 1], 96 - a[:, 0], a[:, 3]], 1)
        torch.testing.assert_close(b, mirrored, rtol=1e-4, atol=1e-3)


def test_only_the_surest_label_of_an_object_is_counted() -> None:
    model = build(score_floor=0.0)
    inputs, samples = multi_batch()
    view = teacher_detect(
        model.teacher,
        inputs['unsup_teacher'],
        samples['unsup_teacher'],
        model.class_state,
        model.labeling_cfg,
    )
    model.label(inputs['unsup_teacher'], samples['unsup_teacher'])
    surest = sum(int(seen.surest.sum()) for seen in view.detections)
    assert model.class_state.score_histogram.sum() == surest
    assert surest < sum(len(seen) for seen in view.detections)


def test_detections_on_crowd_regions_are_not_judged() -> None:
    model = build(score_floor=0.0)
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
    model = build()
    ignored = set(model._ddp_params_and_buffers_to_ignore)
    names = {name for name, _ in model.named_buffers()}
    assert ignored <= names
    assert {'num_iters', 'class_state.kept', 'student.roi_head.bbox_head.feature_sums'} <= ignored
    assert not any('running_mean' in name for name in ignored)


def test_bfloat16_does_not_move_rois() -> None:
    """At 1,332 pixels bfloat16 rounds to multiples of 8."""
    model = build(smoothed=False)
    extractor = model.student.roi_head.bbox_roi_extractor
    seen: list[torch.Tensor] = []
    handle = extractor.roi_layers[0].register_forward_hook(
        lambda module, args, output: seen.append(args[1])
    )
    feats = [torch.randn(1, 16, size, size) for size in (336, 168, 84, 42)]
    rois = torch.tensor([[0, 1301.3, 17.6, 1333.9, 60.2]])
    extractor([feat.bfloat16() for feat in feats], rois)
    handle.remove()
    assert torch.equal(seen[0], rois)


def test_class_weights_and_a_thawed_teacher_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls.class_weight = [1.0] * (NUM_CLASSES + 1)
    with pytest.raises(ValueError, match='class_weight'):
        MODELS.build(semi_config(detector))
    with pytest.raises(ValueError, match='freeze_teacher=False'):
        MODELS.build(semi_config(detector_config(), freeze_teacher=False))


def test_ignored_labels_are_refused() -> None:
    detector = detector_config()
    detector.roi_head.bbox_head.loss_cls.ignore_index = 2
    with pytest.raises(ValueError, match='ignore_index=2'):
        MODELS.build(semi_config(detector))


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
    model = build()
    batch = [{k: v for k, v in part.items() if k != absent} for part in multi_batch()]
    with pytest.raises(KeyError, match=rf"branch '{absent}'.*MultiSourceSampler"):
        model.loss(*batch)
    model.unsup_scale = 0.0
    if absent != 'sup':
        model.loss(*batch)


@pytest.mark.parametrize('semi', [False, True])
def test_statistics_of_another_shape_are_gathered_anew(tmp_path, semi: bool) -> None:
    """Another ``topk`` is no reason to refuse weights that fit."""
    plain = MODELS.build(use_smoothed_head(detector_config(), topk=3))
    plain.roi_head.bbox_head.prototypes += 1
    state = plain.state_dict()
    if semi:
        state = {f'{part}.{k}': v for part in ('teacher', 'student') for k, v in state.items()}
    torch.save(dict(state_dict=state), tmp_path / 'teacher.pth')
    cfg = semi_config(use_smoothed_head(detector_config(), topk=2), **GENEROUS)
    model = MODELS.build(dict(cfg, teacher_checkpoint=str(tmp_path / 'teacher.pth')))
    model.init_weights()
    head = model.teacher.roi_head.bbox_head
    assert head.similarity_indices.shape == (NUM_CLASSES, 2)
    assert torch.equal(head.prototypes, plain.roi_head.bbox_head.prototypes)
    assert torch.equal(head.fc_cls.weight, plain.roi_head.bbox_head.fc_cls.weight)


def test_asking_for_batch_norm_leaves_every_mode_as_it_was() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Conv2d(2, 2, 1)).train()
    network[0].eval()
    assert trains_batch_norm(network)
    assert [module.training for module in network.modules()] == [True, False, True]
