"""HeldOutCalibrationHook in real trainings, against counting by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmdet_softpl.datasets.splits import write_split
from mmdet_softpl.engine import HeldOutCalibrationHook
from mmdet_softpl.models.class_state import CONFIDENCE_BINS
from mmdet_softpl.models.teacher_labels import teacher_detect
from tests.support.tiny_data import write_data
from tests.support.tiny_runs import make_tiny, train

CONFIG = 'calibrated_soft_teacher/calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco.py'
LABELED = 'semi_anns/instances_train2017.1@10.json'


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp('data') / 'coco', CocoDataset.METAINFO['classes'])
    write_split(root / 'annotations/instances_train2017.json', root / 'semi_anns', percent=10)
    return root


def config(repository: Path, root: Path, work_dir: Path, **dataset: object) -> Config:
    cfg = make_tiny(Config.fromfile(repository / 'configs' / CONFIG), root, work_dir)
    # Untrained, a normalised classifier names nothing but one class, which the file does not have.
    cfg.model.detector.roi_head.bbox_head.cls_predictor_cfg = dict(type='Linear')
    held_out = cfg.val_dataloader.to_dict()
    pipeline = held_out['dataset']['pipeline']
    loads = [step for step in pipeline if step['type'] != 'LoadAnnotations']
    loads.insert(1, dict(type='LoadAnnotations', with_bbox=True))
    held_out['dataset'].update(dict(pipeline=loads, test_mode=True) | dataset)
    cfg.custom_hooks.append(
        dict(type='mmdet_softpl.HeldOutCalibrationHook', dataloader=held_out, interval=2)
    )
    return cfg


def counted(hook: HeldOutCalibrationHook, model) -> torch.Tensor:
    """(3, C, B) count, correct, confidence of the surest labels, by loops."""
    expected = torch.zeros(3, model.num_classes, CONFIDENCE_BINS)
    for batch in hook._dataloader:
        data = model.data_preprocessor.data_preprocessor(batch, False)
        samples = data['data_samples']
        view = teacher_detect(
            model.teacher, data['inputs'], samples, model.class_state, model.labeling_cfg
        )
        for seen, sample in zip(view.detections, samples, strict=True):
            seen = seen.cpu()
            truth, taken = sample.gt_instances.cpu(), set()
            order = seen.scores.argsort(descending=True, stable=True).tolist()
            for i in (i for i in order if seen.surest[i]):
                label, score = int(seen.labels[i]), float(seen.scores[i])
                ious = bbox_overlaps(seen.bboxes[i : i + 1], truth.bboxes)[0]
                free = [
                    (float(ious[j]), j)
                    for j in range(len(truth))
                    if int(truth.labels[j]) == label and j not in taken and ious[j] >= 0.5
                ]
                if free:
                    taken.add(max(free)[1])
                if label < 4:  # The others have no instance in the file.
                    column = min(int(score * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)
                    expected[:, label, column] += torch.tensor([1.0, float(bool(free)), score])
    return expected


def test_statistics_are_those_of_the_held_out_images(
    repository: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(repository, root, tmp_path / 'work')
    calls = []
    original = HeldOutCalibrationHook.calibrate

    def calibrate(self, model) -> None:
        calls.append(int(model.num_iters))
        original(self, model)

    monkeypatch.setattr(HeldOutCalibrationHook, 'calibrate', calibrate)
    runner, losses, _ = train(cfg)
    model = runner.model
    # Iteration 0 is supervised; 1 and 2 see unlabelled images, the second after half an interval.
    assert calls == [0, 1] and int(model.num_iters) == 2 and len(losses) == 3
    (hook,) = (h for h in runner.hooks if isinstance(h, HeldOutCalibrationHook))
    expected = counted(hook, model)
    assert expected[0].sum() > 0
    # Left over from labelled batches, where a resumed training had no held-out images before.
    model.class_state.new_reliability += 5
    hook.calibrate(model)
    torch.testing.assert_close(model.class_state.reliability.cpu(), expected)
    # What was seen of classes without an instance says nothing about them.
    absent = hook._absent
    assert absent.any() and not absent.all()
    model.class_state.new_reliability[:, absent] = 3
    model.class_state.offset_counts[:, absent] = 3
    seen = []
    refresh = model.refresh_calibration
    monkeypatch.setattr(
        model,
        'refresh_calibration',
        lambda: (
            seen.append(model.class_state.new_reliability[:, absent].any()),
            seen.append(model.class_state.offset_counts[:, absent].any()),
            refresh(),
        ),
    )
    hook.calibrate(model)
    assert seen == [False, False]
    monkeypatch.setattr(model, 'refresh_calibration', refresh)
    # Once more: the same images are not counted twice.
    table = model.class_state.calibration.clone()
    expected = counted(hook, model)
    hook.calibrate(model)
    torch.testing.assert_close(model.class_state.reliability.cpu(), expected)
    assert table.shape == model.class_state.calibration.shape
    assert not model.class_state.new_reliability.any()
    assert not model.class_state.offset_counts.any()


def test_refused_before_training(repository: Path, root: Path, tmp_path: Path) -> None:
    folder = dict(img='train2017/')
    with pytest.raises(ValueError, match='4 of its images are labelled training images too'):
        cfg = config(repository, root, tmp_path / 'a', ann_file=LABELED, data_prefix=folder)
        Runner.from_cfg(cfg).train()
    with pytest.raises(ValueError, match='has 2 classes, the training set 80'):
        classes = CocoDataset.METAINFO['classes'][:2]
        cfg = config(repository, root, tmp_path / 'b', metainfo=dict(classes=classes))
        Runner.from_cfg(cfg).train()
    loads = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    with pytest.raises(ValueError, match='its pipeline loads no labels'):
        Runner.from_cfg(config(repository, root, tmp_path / 'd', pipeline=loads)).train()
    # As in mmdet's own configs: for an evaluation, which knows the scale.
    loads = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64), keep_ratio=True)]
    loads += [dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
    with pytest.raises(ValueError, match='has Resize before LoadAnnotations'):
        Runner.from_cfg(config(repository, root, tmp_path / 'e', pipeline=loads)).train()
    # An LVIS image speaks of some classes alone.
    val = config(repository, root, tmp_path / 'h').val_dataloader.dataset
    path = root / 'federated.json'
    content = json.loads((root / val.ann_file).read_text())
    for image in content['images']:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    path.write_text(json.dumps(content))
    loads = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    loads.append(dict(type='PackDetInputs', meta_keys=('img_shape', 'ori_shape')))
    with pytest.raises(ValueError, match=r"federated\.json.*has no 'img_id'"):
        cfg = config(repository, root, tmp_path / 'g', pipeline=loads, ann_file=path.name)
        Runner.from_cfg(cfg).train()
    cfg = config(repository, root, tmp_path / 'f')
    held_out = cfg.custom_hooks[-1]['dataloader']
    held_out['dataset'] = dict(type='ConcatDataset', datasets=2 * [held_out['dataset']])
    with pytest.raises(ValueError, match='dataloader has 2 data sets; one is needed'):
        Runner.from_cfg(cfg).train()
    cfg = config(repository, root, tmp_path / 'c')
    cfg.model.semi_train_cfg.update(calibration='none', student_correction=False)
    with pytest.raises(ValueError, match='nothing would use the held-out images'):
        Runner.from_cfg(cfg).train()


def test_the_model_knows_what_held_out_images_speak_of(
    repository: Path, root: Path, tmp_path: Path
) -> None:
    """Of an LVIS image a class that it says nothing about is neither right nor wrong."""
    val = config(repository, root, tmp_path / 'a').val_dataloader.dataset
    content = json.loads((root / val.ann_file).read_text())
    for image, negative in zip(content['images'], (9, 80), strict=True):
        image.update(neg_category_ids=[negative], not_exhaustive_category_ids=[])
    content['images'][1]['not_exhaustive_category_ids'] = [2, 5]
    path = root / 'held_out_federated.json'
    path.write_text(json.dumps(content))
    runner = Runner.from_cfg(config(repository, root, tmp_path / 'b', ann_file=path.name))
    hook = next(h for h in runner.hooks if isinstance(h, HeldOutCalibrationHook))
    hook.before_train(runner)
    # Labels are ids less one.
    expected = {
        image['id']: (
            sorted(
                {negative - 1 for negative in image['neg_category_ids']}
                | {
                    a['category_id'] - 1
                    for a in content['annotations']
                    if a['image_id'] == image['id']
                }
            ),
            [c - 1 for c in image['not_exhaustive_category_ids']] or None,
        )
        for image in content['images']
    }
    assert {
        img_id: (known.tolist(), None if loose is None else loose.tolist())
        for img_id, (known, loose) in runner.model.federated.items()
    } == expected


def test_model_of_another_kind_is_refused() -> None:
    from types import SimpleNamespace

    hook = HeldOutCalibrationHook(dataloader={})
    with pytest.raises(ValueError, match='the model is a Linear'):
        hook.before_train(SimpleNamespace(model=torch.nn.Linear(1, 1)))


@pytest.mark.parametrize('interval', [0, -5])
def test_interval_is_checked(interval: int) -> None:
    with pytest.raises(ValueError, match='interval'):
        HeldOutCalibrationHook(dataloader={}, interval=interval)


def test_registered_under_both_names() -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert MMDET_HOOKS.get('HeldOutCalibrationHook') is HeldOutCalibrationHook
        assert MMDET_HOOKS.get('mmdet_softpl.HeldOutCalibrationHook') is HeldOutCalibrationHook


def test_two_ranks_share_the_images_without_repeats(
    repository: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = config(repository, root, tmp_path / 'work')
    before = copy.deepcopy(cfg.custom_hooks[-1])
    given: list[dict] = []
    build = Runner.build_dataloader

    def noted(loader: dict, *args, **kwargs):
        given.append(copy.deepcopy(loader))
        return build(loader, *args, **kwargs)

    runner = Runner.from_cfg(cfg)
    hook = next(h for h in runner.hooks if isinstance(h, HeldOutCalibrationHook))
    monkeypatch.setattr(runner, 'build_dataloader', noted)
    hook.before_train(runner)
    assert cfg.custom_hooks[-1] == before
    settings = given[0]['sampler']
    assert settings.pop('type') == 'DefaultSampler'
    shares = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda r=rank: (r, 2))
        shares += DefaultSampler(range(3), **settings)
    assert sorted(shares) == [0, 1, 2]
