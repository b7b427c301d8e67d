"""RareBoostPseudoLabeler: initial state, records, checkpoint, audit, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.models.detectors import SemiBaseDetector
from mmengine.logging import MMLogger
from torch import nn

from mmdet_softpl.datasets.annotation_file import AnnotationError
from mmdet_softpl.engine import BurnInMeanTeacherHook, RareBoostPseudoLabeler
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from mmdet_softpl.run_records import PSEUDO_LABELS_FILE, read_records
from tests.support.tiny_labeller import IMAGES, NAMES, Ours, make_runner, see, started, write


def test_initial_state_is_that_of_numpy(tmp_path: Path) -> None:
    hook, _ = started(tmp_path, prototype_weight=(1.0, 0.5, 0.25), boost_gamma=0.5, max_boost=3)
    counts = np.array(IMAGES, dtype=float)
    expected = np.clip((np.median(counts) / counts) ** 0.5, 1, 3)
    np.testing.assert_allclose(hook.class_state.boosts.numpy(), expected, rtol=1e-6)
    assert hook.class_state.groups.tolist() == [0, 0, 1, 2]
    assert hook.class_state.prototype_weights.tolist() == [1, 1, 0.5, 0.25]
    np.testing.assert_allclose(hook.labelled_rate.numpy(), 2 * counts / 120, rtol=1e-6)
    assert torch.equal(hook.class_state.thresholds, torch.full((4,), 0.7))


@pytest.mark.parametrize('filter_empty', [True, False])
def test_images_that_nobody_labelled_are_no_labelled_images(
    tmp_path: Path, filter_empty: bool
) -> None:
    path = Path(write(tmp_path / 'train.json'))
    content = json.loads(path.read_text())
    content['images'] += [dict(id=i, file_name='x.jpg', height=9, width=9) for i in range(900, 980)]
    path.write_text(json.dumps(content))
    for i in range(120):
        (tmp_path / f'{i}.jpg').touch()
    hook, runner = RareBoostPseudoLabeler(str(path)), make_runner(tmp_path, Ours())
    runner.train_dataloader.dataset = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=NAMES),
        filter_cfg=dict(filter_empty_gt=filter_empty),
    )
    hook.before_train(runner)
    images = len(runner.train_dataloader.dataset)
    assert images == (120 if filter_empty else 200)
    np.testing.assert_allclose(hook.labelled_rate.numpy(), 2 * np.array(IMAGES) / images, rtol=1e-6)


def test_lvis_frequencies_win_over_counted_ones(tmp_path: Path) -> None:
    hook = RareBoostPseudoLabeler(write(tmp_path / 'lvis.json', lvis=True))
    hook.before_train(make_runner(tmp_path, Ours()))
    assert hook.class_state.groups.tolist() == [2, 2, 0, 1]
    expected = np.clip((24 / np.array(IMAGES)) ** 0.5, 1, 4)
    np.testing.assert_allclose(hook.class_state.boosts.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(hook.labelled_rate.numpy(), 2 * np.array(IMAGES) / 120, rtol=1e-6)


@pytest.mark.parametrize('interval, due', [(16, [2, 4, 8, 16, 32]), (3, [1, 3, 6, 9]), (1, [1, 2])])
def test_refreshes_come_early_first(tmp_path: Path, interval: int, due: list[int]) -> None:
    hook, runner = started(tmp_path, interval=interval)
    for i in range(due[-1]):
        runner.iter = i
        hook.after_train_iter(runner, i)
    assert [step for step, _ in runner.scalars] == due


def test_iterations_without_unlabelled_images_do_not_count(tmp_path: Path) -> None:
    hook, runner = started(tmp_path, interval=1)
    runner.model.unsup_scale = 0.0
    hook.after_train_iter(runner, 0)
    assert not runner.scalars
    assert hook.history['num_iters'] == 0


def test_scalars_have_the_groups_in_their_names(tmp_path: Path) -> None:
    hook, runner = started(tmp_path, interval=1)
    see(hook, {1: [0.95] * 6, 3: [0.99] * 4}, 2)
    hook.after_train_iter(runner, 0)
    _, values = runner.scalars[0]
    kinds = ('threshold', 'boost', 'kept_per_image', 'never_labelled')
    groups = ('rare', 'common', 'frequent')
    assert set(values) == {f'pseudo/{kind}_{group}' for kind in kinds for group in groups}
    assert values['pseudo/kept_per_image_rare'] == 3
    assert values['pseudo/kept_per_image_frequent'] == 2
    assert [values[f'pseudo/never_labelled_{g}'] for g in groups] == [1, 1, 0]


def test_a_boost_that_nothing_aligns_is_named(tmp_path: Path) -> None:
    for mode, gamma, said in (('hard', 1.0, True), ('soft', 1.0, False), ('hard', 0.0, False)):
        _, runner = started(tmp_path, boost_gamma=gamma)
        model = Ours()
        model.semi_train_cfg['label_mode'] = mode
        runner = make_runner(tmp_path, model)
        hook = RareBoostPseudoLabeler(str(tmp_path / 'train.json'), boost_gamma=gamma)
        hook.before_train(runner)
        assert any('not aligned' in warning for warning in runner.warnings) == said


def test_the_checkpoint_holds_plain_tensors_and_a_resume_takes_them_up(tmp_path: Path) -> None:
    hook, runner = started(tmp_path, interval=2)
    see(hook, {c: [0.2, 0.8] * 30 for c in range(4)}, 5)
    for i in range(3):
        hook.after_train_iter(runner, i)
    checkpoint: dict[str, Any] = {'state_dict': runner.model.state_dict()}
    hook.before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)

    again = RareBoostPseudoLabeler(str(tmp_path / 'train.json'), interval=2)
    resumed = make_runner(tmp_path, Ours(), resume=True)
    resumed.model.load_state_dict(loaded['state_dict'])
    again.after_load_checkpoint(resumed, loaded)
    again.before_train(resumed)
    for key, value in hook.history.items():
        assert torch.equal(again.history[key], value), key
    assert torch.equal(again.class_state.thresholds, hook.class_state.thresholds)
    assert torch.equal(
        again.class_state.wanted_boosts, hook.policy.frequency_boosts(hook.statistics)
    )
    assert again.class_state.wanted_boosts.max() > 1
    again.after_train_iter(resumed, 3)
    assert len(resumed.scalars) == 1

    # Weights of prototypes are a setting: those of the config, like the frequency boosts.
    turned = RareBoostPseudoLabeler(str(tmp_path / 'train.json'), prototype_weight=(0, 0.25, 0.5))
    turned.after_load_checkpoint(resumed, loaded)
    turned.before_train(resumed)
    assert turned.class_state.prototype_weights.tolist() == [0, 0, 0.25, 0.5]

    # load_from starts anew.
    fresh = RareBoostPseudoLabeler(str(tmp_path / 'train.json'), interval=2)
    other = make_runner(tmp_path, Ours())
    fresh.after_load_checkpoint(other, loaded)
    fresh.before_train(other)
    assert fresh.history['num_iters'] == 0


def test_resuming_with_another_labelled_file_is_named(tmp_path: Path) -> None:
    hook, runner = started(tmp_path)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    path = write(tmp_path / 'other.json', images=(3, 4), names=('x', 'y'))
    other = RareBoostPseudoLabeler(path)
    resumed = make_runner(tmp_path, Ours(2), names=('x', 'y'), resume=True)
    other.after_load_checkpoint(resumed, checkpoint)
    with pytest.raises(ValueError, match=r'4 classes.*other\.json has 2'):
        other.before_train(resumed)


def test_audit_file(tmp_path: Path) -> None:
    hook, runner = started(tmp_path, interval=100)
    see(hook, {1: [0.95] * 6, 3: [0.99] * 4}, 2)
    hook.refresh()
    # Seen after the last refresh; counted all the same.
    see(hook, {3: [0.999] * 3}, 1)
    runner.iter = 12
    hook.after_train(runner)
    audit = json.loads((tmp_path / 'pseudo_label_audit.json').read_text())
    assert (audit['timestamp'], audit['iteration']) == ('20260101_000000', 12)
    assert audit['unlabelled_images_seen'] == 3
    assert audit['frequency_source'] == 'counted'
    assert audit['labeled_ann_file'].endswith('train.json')
    assert [record['name'] for record in audit['classes']] == list(NAMES)
    assert [record['kept'] for record in audit['classes']] == [0, 6, 0, 7]
    assert [record['labelled_images'] for record in audit['classes']] == list(IMAGES)
    assert audit['groups']['rare'] == dict(classes=2, kept=6, never_labelled=['ant'])
    assert math.isclose(audit['classes'][3]['kept_per_image'], 7 / 3)


class Head(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def predict(self) -> None:
        pass


class Host(SemiBaseDetector):
    """The parts of a SemiBaseDetector that the hook touches."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.teacher = nn.Module()
        self.teacher.roi_head = Head()
        self.semi_train_cfg = dict(cls_pseudo_thr=0.9)


def test_on_a_host_the_state_is_the_hooks_own_and_in_the_checkpoint(tmp_path: Path) -> None:
    model = Host()
    hook, runner = started(tmp_path, model, interval=1)
    assert 'get_pseudo_instances' in model.__dict__
    see(hook, {c: [0.2, 0.8] * 30 for c in range(4)}, 5)
    hook.after_train_iter(runner, 0)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    again = RareBoostPseudoLabeler(str(tmp_path / 'train.json'), interval=1)
    resumed = make_runner(tmp_path, Host(), resume=True)
    again.after_load_checkpoint(resumed, checkpoint)
    again.before_train(resumed)
    for key, value in hook.class_state.state_dict().items():
        assert torch.equal(again.class_state.state_dict()[key], value), key
    hook.after_train(runner)
    assert 'get_pseudo_instances' not in model.__dict__


def test_classes_of_the_data_set_alone_count(tmp_path: Path) -> None:
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json'))
    names = ('bee', 'dog')
    hook.before_train(make_runner(tmp_path, Host(), names=names))
    assert hook.statistics.classes == names
    assert hook.class_state.groups.tolist() == [0, 2]
    see(hook, {0: [0.9] * 30}, 3)
    hook.refresh()


def test_a_class_that_the_labelled_file_lacks_is_named(tmp_path: Path) -> None:
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json'))
    with pytest.raises(AnnotationError, match=r"train\.json[\s\S]*'gnu'"):
        hook.before_train(make_runner(tmp_path, Ours(), names=('ant', 'gnu')))


def test_a_model_with_another_number_of_classes_is_named(tmp_path: Path) -> None:
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json'))
    with pytest.raises(ValueError, match=r'4 classes.*num_classes=7'):
        hook.before_train(make_runner(tmp_path, Ours(7)))


def test_a_class_without_labelled_image_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / 'train.json', images=(3, 0, 4, 5))
    messages: list[str] = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    hook = RareBoostPseudoLabeler(path)
    assert len(messages) == 1 and 'no labelled image: bee' in messages[0]
    hook.before_train(make_runner(tmp_path, Ours()))
    assert hook.class_state.boosts[1] == 1


@pytest.mark.parametrize('content', [None, '', '{"images": [', '{"images": [], "annotations": []}'])
def test_an_unusable_labelled_file_is_named_at_construction(tmp_path: Path, content: Any) -> None:
    path = tmp_path / 'broken.json'
    if content is not None:
        path.write_text(content)
    with pytest.raises((AnnotationError, FileNotFoundError), match=r'broken\.json'):
        RareBoostPseudoLabeler(str(path))


@pytest.mark.parametrize(
    'kwargs, word',
    [
        (dict(boost_gamma=-0.1), '-0.1'),
        (dict(max_boost=0.5), '0.5'),
        (dict(prototype_weight=1.5), '1.5'),
        (dict(prototype_weight=(1.0, 2.0, 0.0)), '2.0'),
        (dict(prototype_weight=(1.0, 0.5)), 'three'),
        (dict(threshold_mode='magic'), "'prior'.*'curriculum'"),
        (dict(fixed_thr=1.01), '1.01'),
        (dict(alpha=0.0), '0.0'),
        (dict(quantile=-1), '-1'),
        (dict(thr_range=(0.9, 0.3)), '0.3'),
        (dict(thr_range=(-0.2, 0.3)), '-0.2'),
        (dict(min_count=0), '0'),
        (dict(damp_factor=0), '0'),
        (dict(damp_patience=0), '0'),
        (dict(align_rate=1.5), '1.5'),
        (dict(interval=0), '0'),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, kwargs: Any, word: str) -> None:
    (name,) = kwargs
    with pytest.raises(ValueError, match=f'{name}.*{word}'):
        RareBoostPseudoLabeler(write(tmp_path / 'train.json'), **kwargs)


def test_the_hosts_mean_teacher_hook_is_refused_where_it_loses_state(tmp_path: Path) -> None:
    path = write(tmp_path / 'train.json')
    model = Ours()
    runner = make_runner(tmp_path, model, hooks=[MeanTeacherHook()])
    RareBoostPseudoLabeler(path).before_train(runner)
    assert not runner.warnings
    model.teacher.keeps_prototypes = True
    RareBoostPseudoLabeler(path).before_train(runner)
    assert len(runner.warnings) == 1 and 'BurnInMeanTeacherHook' in runner.warnings[0]
    RareBoostPseudoLabeler(path, prototype_weight=0.0).before_train(runner)
    assert len(runner.warnings) == 1
    model.has_trainable_batch_norm = True
    with pytest.raises(ValueError, match='batch norm'):
        RareBoostPseudoLabeler(path).before_train(runner)
    # All buffers are averaged.
    runner.hooks = [MeanTeacherHook(skip_buffer=False)]
    RareBoostPseudoLabeler(path).before_train(runner)


def test_a_teacher_that_nothing_updates_is_said(tmp_path: Path) -> None:
    """As where a config's custom_hooks takes the place of its base's."""
    path = write(tmp_path / 'train.json')
    for hooks, count in (([BurnInMeanTeacherHook()], 0), ([MeanTeacherHook()], 0), ([], 1)):
        runner = make_runner(tmp_path, Ours(), hooks=hooks)
        RareBoostPseudoLabeler(path).before_train(runner)
        assert len(runner.warnings) == count
        assert all('teacher stays as it is' in warning for warning in runner.warnings)
        assert runner.model.has_labeller


def test_a_head_without_prototypes_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / 'train.json')
    model = Ours()
    model.teacher.roi_head.bbox_head = SmoothedCEHead(num_classes=4, smoothing=0.0)
    runner = make_runner(tmp_path, model)
    RareBoostPseudoLabeler(path, prototype_weight=0.0).before_train(runner)
    assert not runner.warnings
    RareBoostPseudoLabeler(path).before_train(runner)
    assert len(runner.warnings) == 1 and 'smoothing > 0' in runner.warnings[0]
    model.teacher.roi_head.bbox_head = SmoothedCEHead(num_classes=4)
    RareBoostPseudoLabeler(path).before_train(runner)
    assert len(runner.warnings) == 1


def test_a_fresh_start_forgets_the_state_of_loaded_weights(tmp_path: Path) -> None:
    model = Ours()
    with torch.no_grad():
        for buffer in model.class_state.buffers():
            buffer.fill_(1)
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json'), fixed_thr=0.6)
    hook.before_train(make_runner(tmp_path, model))
    fresh = ClassState(4, 0.6).state_dict()
    for name in ('offsets', 'calibration', 'reliability', 'score_histogram', 'thresholds'):
        assert torch.equal(model.class_state.state_dict()[name], fresh[name]), name


@pytest.mark.parametrize('value', [0.7, (0.3,), (0.1, 0.2, 0.3)])
def test_a_single_threshold_is_not_a_range(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ValueError, match=r'thr_range.*fixed_thr'):
        RareBoostPseudoLabeler(write(tmp_path / 'train.json'), thr_range=value)


def test_a_missing_file_names_the_hooks_own_key() -> None:
    with pytest.raises(FileNotFoundError, match=r"labeled_ann_file='nowhere\.json'.*not joined"):
        RareBoostPseudoLabeler('nowhere.json')


def test_resuming_with_another_labelled_file_is_said(tmp_path: Path) -> None:
    hook, runner = started(tmp_path)
    checkpoint: dict[str, Any] = {}
    hook.before_save_checkpoint(runner, checkpoint)
    for images, expected in ((IMAGES, 0), ((3, 8, 40, 120), 1)):
        again = RareBoostPseudoLabeler(write(tmp_path / 'other.json', images=images))
        resumed = make_runner(tmp_path, Ours(), resume=True)
        again.after_load_checkpoint(resumed, checkpoint)
        again.before_train(resumed)
        assert len(resumed.warnings) == expected
    assert "'ant' had 2 labelled images, now 3" in resumed.warnings[0]


def test_every_refresh_is_written_for_the_report(tmp_path: Path) -> None:
    hook, runner = started(tmp_path, interval=2)
    for i in range(4):
        runner.iter = i
        see(hook, {1: [0.95] * 6, 3: [0.99] * 4}, 2)
        hook.after_train_iter(runner, i)
    head, *records = read_records(tmp_path / PSEUDO_LABELS_FILE)
    assert head == dict(
        start_iter=0,
        classes=list(NAMES),
        groups=[0, 0, 1, 2],
        expected_per_image=[round(2 * n / 120, 5) for n in IMAGES],
    )
    assert [record['iter'] for record in records] == [step for step, _ in runner.scalars]
    assert [record['images'] for record in records] == [2, 2, 4]
    for record, (_, scalars) in zip(records, runner.scalars, strict=True):
        assert record['kept_per_image'][3] == scalars['pseudo/kept_per_image_frequent']
        assert record['thresholds'][3] == pytest.approx(
            scalars['pseudo/threshold_frequent'], abs=1e-4
        )
    assert records[-1]['boosts'] == pytest.approx(hook.class_state.boosts.tolist(), abs=1e-4)
