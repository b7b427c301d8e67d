"""Exports are compared with the network they came from, and loaded where we cannot be imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmdet_softpl.__main__ import main
from mmdet_softpl.engine.export_check import halved, pair_detections
from mmdet_softpl.engine.plain_config import ExportError, plain_config
from mmdet_softpl.engine.plain_detector import dataset_meta, plain_state_dict
from mmdet_softpl.shipped_configs import config_names, config_path

CLASSES = ('cat', 'dog', 'owl')
NARROW = dict(depth=18, base_channels=8, init_cfg=None, frozen_stages=-1)
HEAD = dict(fc_out_channels=32, num_classes=len(CLASSES), in_channels=16)
SMOOTHED = dict(type='mmdet_softpl.SmoothedCEHead', smoothing=0.2, smoothing_mode='similarity')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]


def detector_config(smoothed: bool) -> dict:
    """A narrow Mask R-CNN on mmdet's base config."""
    base = Config.fromfile(
        Path(__import__('mmdet').__file__).parent
        / '.mim/configs/_base_/models/mask-rcnn_r50_fpn.py'
    )
    base.merge_from_dict(
        dict(
            model=dict(
                data_preprocessor=dict(mean=[100.0, 110.0, 120.0]),
                backbone=NARROW,
                neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
                rpn_head=dict(in_channels=16, feat_channels=16),
                roi_head=dict(
                    bbox_roi_extractor=dict(out_channels=16),
                    bbox_head=HEAD | (SMOOTHED if smoothed else {}),
                    mask_roi_extractor=dict(out_channels=16),
                    mask_head=dict(
                        num_convs=1, in_channels=16, conv_out_channels=16, num_classes=len(CLASSES)
                    ),
                ),
                test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=50), rcnn=dict(max_per_img=10)),
            )
        )
    )
    return base.model.to_dict()


def training_config(root: Path, semi: str | None, smoothed: bool) -> Config:
    """What a training of ours has in its checkpoint."""
    model = detector_config(smoothed)
    if semi is not None:
        model = dict(
            type=semi,
            detector=model,
            data_preprocessor=dict(
                type='MultiBranchDataPreprocessor', data_preprocessor=model['data_preprocessor']
            ),
        )
        if semi == 'SoftTeacher':
            model['semi_train_cfg'] = dict(freeze_teacher=True)
            model['semi_test_cfg'] = dict(predict_on='teacher')
    ann_file = str(root / 'val.json')
    dataset = dict(
        type='CocoDataset',
        ann_file=ann_file,
        data_prefix=dict(img=str(root)),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        pipeline=PIPELINE,
    )
    loader = dict(
        batch_size=1,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    return Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmdet_softpl']),
            custom_hooks=[dict(type='mmdet_softpl.RareBoostPseudoLabeler')],
            model=model,
            val_dataloader=loader,
            val_cfg=dict(type='TeacherStudentValLoop'),
            val_evaluator=dict(
                type='mmdet_softpl.LongTailMetric',
                ann_file=ann_file,
                metric=['bbox', 'segm'],
                max_dets=300,
            ),
            visualizer=dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        )
    )


@pytest.fixture(scope='module')
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images and their annotations."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for name in ('a.png', 'b.png'):
        cv2.imwrite(str(root / name), rng.integers(0, 255, (96, 96, 3), dtype=np.uint8))
    box = dict(
        bbox=[10, 10, 40, 40], area=1600, iscrowd=0, segmentation=[[10, 10, 50, 10, 50, 50, 10, 50]]
    )
    content = dict(
        images=[
            dict(id=i, file_name=n, height=96, width=96) for i, n in enumerate(('a.png', 'b.png'))
        ],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        annotations=[dict(id=i + 1, image_id=i, category_id=i + 1, **box) for i in range(2)],
    )
    (root / 'val.json').write_text(json.dumps(content))
    return root


def save_checkpoint(cfg: Config, path: Path) -> torch.nn.Module:
    """Build the model of ``cfg`` with random weights and save it as a Runner would."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    for name, parameter in model.named_parameters():
        # Wild box deltas would only make RoIAlign slow.
        torch.nn.init.normal_(parameter, std=0.01 if 'reg' in name else 0.1)
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    hub = dict(log_scalars={'train/loss': HistoryBuffer([1.0], [1])})
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=CLASSES, palette=[(1, 2, 3)] * 3))
    torch.save(dict(meta=meta, state_dict=model.state_dict(), message_hub=hub), path)
    return model.eval()


def predictions(
    model: torch.nn.Module, preprocessor: torch.nn.Module, image: Path
) -> list[np.ndarray]:
    """Boxes, scores, labels and masks of one image, by the network itself."""
    from mmcv.transforms import Compose

    with DefaultScope.overwrite_default_scope('mmdet'):
        from mmdet.registry import TRANSFORMS

        pipeline = Compose([TRANSFORMS.build(step) for step in PIPELINE])
        packed = pipeline(dict(img_path=str(image), img_id=0))
    data = preprocessor(
        dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]), training=False
    )
    with torch.no_grad():
        found = model.predict(data['inputs'], data['data_samples'])[0].pred_instances
    return [np.asarray(found[name]) for name in ('bboxes', 'scores', 'labels', 'masks')]


CASES = [
    pytest.param('SoftTeacher', False, 'teacher', id='host-teacher'),
    pytest.param('SoftTeacher', True, 'student', id='host-student-smoothed'),
    pytest.param('mmdet_softpl.CalibratedSoftTeacher', True, 'teacher', id='ours-teacher'),
    pytest.param('mmdet_softpl.CalibratedSoftTeacher', True, 'student', id='ours-student'),
    pytest.param(None, True, 'teacher', id='plain-smoothed'),
]


@pytest.mark.parametrize(('semi', 'smoothed', 'network'), CASES)
def test_same_predictions(
    semi: str | None, smoothed: bool, network: str, data_root: Path, tmp_path: Path
) -> None:
    cfg = training_config(data_root, semi, smoothed)
    model = save_checkpoint(cfg, tmp_path / 'iter_3.pth')
    assert (
        main(['export', str(tmp_path / 'iter_3.pth'), '--from', network, str(tmp_path / 'out')])
        == 0
    )

    source = model if semi is None else getattr(model, network)
    preprocessor = model.data_preprocessor
    preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)
    expected = predictions(source, preprocessor, data_root / 'a.png')
    assert len(expected[0]) > 0

    inferencer = DetInferencer(
        str(tmp_path / 'out/detector.py'),
        str(tmp_path / 'out/detector.pth'),
        device='cpu',
        show_progress=False,
    )
    result = inferencer(str(data_root / 'a.png'), return_datasamples=True, no_save_vis=True)
    found = result['predictions'][0].pred_instances
    for name, wanted in zip(('bboxes', 'scores', 'labels', 'masks'), expected, strict=True):
        np.testing.assert_allclose(np.asarray(found[name]), wanted, atol=1e-5, err_msg=name)
    assert inferencer.model.dataset_meta['classes'] == CLASSES
    if semi is not None:
        other = getattr(model, 'student' if network == 'teacher' else 'teacher')
        assert any(
            not torch.equal(a, b)
            for a, b in zip(inferencer.model.parameters(), other.parameters(), strict=True)
        )


WITHOUT_US = """
import sys
import mmdet_softpl, mmcv.ops  # with mmcv-lite: for the ops alone
for name in [name for name in sys.modules if name.split('.')[0] == 'mmdet_softpl']:
    sys.modules[name] = None
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith('mmdet_softpl')]
import torch
if hasattr(torch.serialization, 'clear_safe_globals'):
    torch.serialization.clear_safe_globals()
from mmdet.apis import DetInferencer
folder, image = sys.argv[1:]
run = DetInferencer(folder + '/detector.py', folder + '/detector.pth', device='cpu')
print('FOUND', len(run(image, no_save_vis=True)['predictions'][0]['scores']))
"""


def test_loads_without_us_and_with_hosts_test_script(
    data_root: Path, tmp_path: Path, repository: Path
) -> None:
    cfg = training_config(data_root, 'mmdet_softpl.CalibratedSoftTeacher', True)
    save_checkpoint(cfg, tmp_path / 'iter_3.pth')
    out = tmp_path / 'out'
    assert main(['export', str(tmp_path / 'iter_3.pth'), str(out)]) == 0
    text = (out / 'detector.py').read_text()
    for ours in (
        'softpl',
        'SmoothedCEHead',
        'LongTailMetric',
        'RareBoost',
        'SoftTeacher',
        'smoothing',
    ):
        assert ours not in text
    assert 'Shared2FCBBoxHead' in text

    environment = os.environ | {'PYTHONPATH': str(repository), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-c', WITHOUT_US, str(out), str(data_root / 'a.png')]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert 'FOUND ' in found.stdout, found.stderr[-2000:]

    script = [sys.executable, str(repository / 'tools/test.py'), str(out / 'detector.py')]
    script += [str(out / 'detector.pth'), '--work-dir', str(tmp_path / 'work')]
    tested = subprocess.run(script, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr[-2000:]
    assert 'coco/segm_mAP' in tested.stdout + tested.stderr


def test_names_what_is_left_out(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_checkpoint(training_config(data_root, 'SoftTeacher', True), tmp_path / 'c.pth')
    assert main(['export', str(tmp_path / 'c.pth'), str(tmp_path / 'out'), '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert 'roi_head.bbox_head.prototypes' in summary['dropped']
    assert all(name.startswith('roi_head.bbox_head.') for name in summary['dropped'])
    weights = torch.load(summary['weights'], weights_only=True)
    assert not any(key.startswith(('teacher.', 'student.')) for key in weights['state_dict'])


@pytest.mark.parametrize('half', [False, True])
@pytest.mark.parametrize(('semi', 'network'), [(CASES[3].values[0], 'student'), (None, 'teacher')])
def test_the_check_compares_with_the_network(
    semi: str | None,
    network: str,
    half: bool,
    data_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    path, out = tmp_path / 'c.pth', tmp_path / 'out'
    save_checkpoint(training_config(data_root, semi, True), path)
    command = ['export', str(path), str(out), '--from', network, '--check', str(data_root)]
    assert main([*command, '--json', *(['--fp16'] if half else [])]) == 0
    check = json.loads(capsys.readouterr().out)['check']
    assert check['images'] == 2 and check['agrees']
    assert check['detections'] > 0 and check['paired'] >= 0.98 * check['detections']
    assert (0 < check['score_difference'] < 0.02) if half else (check['score_difference'] < 1e-5)
    # As the host counts them.
    inferencer = DetInferencer(
        str(out / 'detector.py'), str(out / 'detector.pth'), device='cpu', show_progress=False
    )
    shipped = [
        sum(
            score >= 0.05
            for score in inferencer(str(image), no_save_vis=True)['predictions'][0]['scores']
        )
        for image in sorted(data_root.glob('*.png'))
    ]
    assert check['detections'] == pytest.approx(2 * sum(shipped), abs=2 * half)
    kinds = {v.dtype for v in torch.load(out / 'detector.pth')['state_dict'].values()}
    assert kinds == {torch.float16 if half else torch.float32, torch.int64}


def test_a_check_of_nothing_is_none(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'c.pth'
    cfg = training_config(data_root, None, True)
    cfg.model.test_cfg.rcnn.score_thr = 1.0
    save_checkpoint(cfg, path)
    command = ['export', str(path), str(tmp_path / 'out'), '--check', str(data_root / 'a.png')]
    assert main(command) == 1
    assert 'so nothing was compared' in capsys.readouterr().out


def test_a_check_that_fails(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / 'c.pth'
    save_checkpoint(training_config(data_root, None, True), path)
    kept = torch.save

    def spoilt(content: dict, file: Path) -> None:
        if 'roi_head.bbox_head.fc_cls.weight' in content['state_dict']:
            content['state_dict']['roi_head.bbox_head.fc_cls.weight'] = -content['state_dict'][
                'roi_head.bbox_head.fc_cls.weight'
            ]
        kept(content, file)

    monkeypatch.setattr(torch, 'save', spoilt)
    command = ['export', str(path), str(tmp_path / 'out'), '--check', str(data_root / 'a.png')]
    assert main(command) == 1
    assert 'on 1 images are the same in both' in capsys.readouterr().out
    assert main([*command[:-1], str(tmp_path / 'nowhere'), '--overwrite']) == 2
    assert 'nowhere: there is no image' in capsys.readouterr().err


def test_nothing_is_left_of_an_export_that_fails(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path, out, broken = tmp_path / 'c.pth', tmp_path / 'out', tmp_path / 'broken.jpg'
    save_checkpoint(training_config(data_root, None, True), path)
    broken.write_bytes(b'no image')
    assert main(['export', str(path), str(out), '--check', str(broken)]) == 2
    assert f'--check {broken}: the image cannot be read' in capsys.readouterr().err
    assert not out.exists()

    def full(content: dict, file: Path) -> None:
        Path(file).write_bytes(b'half')
        raise RuntimeError('[enforce fail at inline_container.cc:672]')

    monkeypatch.setattr(torch, 'save', full)
    assert main(['export', str(path), str(out)]) == 2
    message = capsys.readouterr().err
    assert 'detector.pth and ' in message and 'cannot be written: [enforce fail' in message
    assert not list(out.iterdir())


def test_pairs() -> None:
    box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.5], [50, 50, 60, 60]])
    ours = InstanceData(
        bboxes=box, labels=torch.tensor([0, 0, 1]), scores=torch.tensor([0.9, 0.8, 0.7])
    )
    # One of two near boxes, moved scores, and another class.
    theirs = InstanceData(
        bboxes=box[[2, 0]], labels=torch.tensor([2, 0]), scores=torch.tensor([0.7, 0.85])
    )
    pairs, difference = pair_detections(ours, theirs)
    assert pairs == 1 and difference == pytest.approx(0.05)
    assert pair_detections(ours, ours)[0] == 3
    assert pair_detections(ours[:0], theirs) == pair_detections(ours, theirs[:0]) == (0, 0.0)


def test_masks_take_part_in_a_pair() -> None:
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, :10, :10] = True
    ours = InstanceData(
        bboxes=torch.tensor([[0.0, 0, 10, 10], [12, 12, 18, 18]]),
        labels=torch.tensor([0, 0]),
        scores=torch.tensor([0.9, 0.8]),
        masks=masks,
    )
    # The second mask is empty in both.
    assert pair_detections(ours, ours) == (2, 0.0)
    other = ours.clone()
    other.masks = masks.clone()
    other.masks[0, :, :5] = False
    assert pair_detections(ours, other) == (1, 0.0)


def test_scores_that_moved_are_no_agreement(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'c.pth'
    save_checkpoint(training_config(data_root, None, True), path)
    monkeypatch.setattr(
        'mmdet_softpl.engine.export_check.pair_detections', lambda a, b: (len(a), 0.01)
    )
    command = ['export', str(path), str(tmp_path / 'out'), '--check', str(data_root / 'a.png')]
    assert main(command) == 1
    assert main([*command, '--overwrite', '--fp16']) == 0


def test_what_half_precision_cannot_hold() -> None:
    counts = {'roi_head.bbox_head.loss_cls.cum_samples': torch.tensor([1e6])}
    assert halved(counts)['roi_head.bbox_head.loss_cls.cum_samples'].tolist() == [1e6]
    assert halved({'a': torch.tensor([1.0, torch.inf])})['a'].dtype == torch.float16
    with pytest.raises(ValueError, match='b has values beyond 65,504'):
        halved({'a': torch.ones(1), 'b': torch.tensor([1.0, -1e5])})


def test_state_dict_selection() -> None:
    mixed = {'teacher.w': 1, 'student.w': 2, 'teacher.extra': 3, 'outer': 4}
    assert plain_state_dict(mixed, 'teacher', {'w': 0}) == ({'w': 1}, ['extra'])
    assert plain_state_dict(mixed, 'student', {'w': 0}) == ({'w': 2}, [])
    assert plain_state_dict({'w': 5}, 'student', {'w': 0}) == ({'w': 5}, [])
    with pytest.raises(ExportError, match=r'lacks 1 of 2 entries.*first: v'):
        plain_state_dict(mixed, 'teacher', {'w': 0, 'v': 0})


def test_config_keeps_own_imports_and_stock_metrics(data_root: Path) -> None:
    cfg = training_config(data_root, None, False)
    cfg.custom_imports.imports = ['mmdet_softpl', 'my_backbones']
    cfg.test_evaluator = [dict(type='CocoMetric', metric='bbox'), cfg.val_evaluator]
    cfg.test_dataloader = cfg.val_dataloader
    plain = plain_config(cfg)
    assert plain.custom_imports.imports == ['my_backbones']
    assert [metric.type for metric in plain.test_evaluator] == ['CocoMetric', 'CocoMetric']
    # By default ours evaluates masks, the stock one does not.
    del cfg.val_evaluator['metric']
    cfg.test_evaluator = cfg.val_evaluator
    assert plain_config(cfg).test_evaluator.metric == ['bbox', 'segm']
    assert 'custom_hooks' not in plain


def test_a_test_set_in_wrappers_is_found(data_root: Path) -> None:
    cfg = training_config(data_root, None, False)
    one = cfg.val_dataloader.dataset
    repeated = dict(type='RepeatDataset', times=1, dataset=one)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated, one])
    plain = plain_config(cfg)
    assert plain.test_pipeline == PIPELINE
    assert plain.test_dataloader.dataset.type == 'ConcatDataset'
    assert dataset_meta({}, plain, 'c.pth')['classes'] == CLASSES
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[])
    with pytest.raises(ExportError, match='no data set'):
        plain_config(cfg)


@pytest.mark.parametrize('name', config_names())
def test_every_shipped_config_has_a_plain_one(name: str) -> None:
    plain = plain_config(Config.fromfile(config_path(name)))
    types = set(re.findall(r"type='([^']*)'", plain.pretty_text))
    assert not {ours for ours in types if 'softpl' in ours or 'Smoothed' in ours}
    assert {'CascadeRCNN', 'FasterRCNN', 'MaskRCNN'} & types


def test_class_names_from_the_text_file_of_the_test_set(data_root: Path, tmp_path: Path) -> None:
    names = tmp_path / 'classes.txt'
    names.write_text('\n'.join(CLASSES) + '\n')
    cfg = training_config(data_root, 'SoftTeacher', False)
    cfg.val_dataloader.dataset.metainfo = dict(classes=str(names))
    save_checkpoint(cfg, tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth')
    del loaded['meta']['dataset_meta']
    torch.save(loaded, tmp_path / 'c.pth')
    assert main(['export', str(tmp_path / 'c.pth'), str(tmp_path / 'out')]) == 0
    weights = torch.load(tmp_path / 'out/detector.pth', weights_only=True)
    assert weights['meta']['dataset_meta']['classes'] == CLASSES


def test_bad_input(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def message(*arguments: str) -> str:
        assert main(['export', *arguments, str(tmp_path / 'out')]) == 2
        return capsys.readouterr().err

    assert 'missing.pth: there is no such checkpoint' in message(str(tmp_path / 'missing.pth'))
    (tmp_path / 'config.py').write_text('model = dict()')
    assert 'config.py: this is a config, not a checkpoint' in message(str(tmp_path / 'config.py'))

    broken = tmp_path / 'broken.pth'
    broken.write_bytes(b'PK not a checkpoint')
    assert 'broken.pth: not a checkpoint of PyTorch' in message(str(broken))

    bare = tmp_path / 'bare.pth'
    torch.save(dict(state_dict={}), bare)
    assert 'give one with --config' in message(str(bare))

    cfg = training_config(data_root, 'SoftTeacher', False)
    save_checkpoint(cfg, tmp_path / 'c.pth')
    loaded = torch.load(tmp_path / 'c.pth')
    loaded['meta']['dataset_meta'] = dict(classes=('cat',))
    torch.save(loaded, tmp_path / 'c.pth')
    assert 'num_classes=3, but there are 1 class names' in message(str(tmp_path / 'c.pth'))
    assert not (tmp_path / 'out').exists()

    (tmp_path / 'out').touch()
    assert 'out: a file, but a folder is needed' in message(str(tmp_path / 'c.pth'))
    (tmp_path / 'out').unlink()

    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'detector.pth').touch()
    assert '--overwrite' in message(str(tmp_path / 'c.pth'))
