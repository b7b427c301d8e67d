"""What CalibratedSoftTeacher and its hook take from checkpoints, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_softpl.engine import BurnInMeanTeacherHook, burn_in_mean_teacher_hook
from tests.support.tiny import (
    GENEROUS,
    NUM_CLASSES,
    detector_config,
    multi_batch,
    semi_config,
    use_smoothed_head,
)
from tests.support.tiny_teacher import tiny_teacher


def test_state_is_in_the_checkpoint_and_goes_on() -> None:
    a, b = tiny_teacher(), tiny_teacher()
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
    model = tiny_teacher(smoothed=False)
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
    model = tiny_teacher(smoothed=False)
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
    trained = tiny_teacher()
    trained.class_state.calibration *= 0.5
    trained.class_state.offsets += 1
    fresh = tiny_teacher().class_state
    for cfg, kept in ((dict(calibration='none'), 'offsets'), ({}, 'calibration')):
        off = tiny_teacher(**cfg, student_correction=kept == 'offsets')
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


def test_a_missing_teacher_checkpoint_is_named_at_construction() -> None:
    with pytest.raises(FileNotFoundError, match='nowhere'):
        MODELS.build(dict(semi_config(detector_config()), teacher_checkpoint='nowhere.pth'))


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
