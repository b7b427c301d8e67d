"""A config's own values against its data."""

from __future__ import annotations

import copy
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets.samplers import MultiSourceSampler
from mmdet.models.losses import SeesawLoss

from mmdet_softpl.datasets.config_findings import batch_shares, batches_are_mixed, config_findings
from mmdet_softpl.datasets.config_sets import configured_sets
from mmdet_softpl.datasets.findings import ERROR, WARNING, Finding
from mmdet_softpl.datasets.image_scan import scan_images
from mmdet_softpl.datasets.set_contents import read_set
from tests.support.tiny_data import write_data

CLASSES = ('a', 'b', 'c', 'd')


@pytest.fixture()
def cfg(tmp_path: Path) -> dict:
    root = write_data(tmp_path / 'data', CLASSES, num_train=4)
    files = {s: str(root / f'annotations/instances_{s}2017.json') for s in ('train', 'val')}

    def coco(split: str) -> dict:
        return dict(
            type='CocoDataset',
            ann_file=files[split],
            data_prefix=dict(img=str(root / f'{split}2017')),
            metainfo=dict(classes=CLASSES),
        )

    folder = str(root / 'unlabeled2017')
    heads = dict(
        bbox_head=[dict(num_classes=4), dict(num_classes=4)], mask_head=dict(num_classes=4)
    )
    return dict(
        model=dict(detector=dict(rpn_head=dict(num_classes=1), roi_head=heads)),
        train_dataloader=dict(
            batch_size=4,
            sampler=dict(type='MultiSourceSampler', batch_size=4, source_ratio=[1, 1]),
            dataset=dict(
                type='ConcatDataset',
                datasets=[
                    coco('train'),
                    dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=folder),
                ],
            ),
        ),
        val_dataloader=dict(dataset=coco('val')),
        val_evaluator=dict(ann_file=files['val'], labeled_ann_file=files['train']),
        custom_hooks=[
            dict(type='BurnIn'),
            dict(type='mmdet_softpl.RareBoostPseudoLabeler', labeled_ann_file=files['train']),
        ],
    )


def _findings(cfg: dict, read: bool = False) -> list[tuple[str, str, str]]:
    sets = [read_set(one) for one in configured_sets(cfg)]
    scanned = scan_images(i.path for one in sets for i in one.images) if read else None
    return [(f.severity, f.subject, f.kind) for f in config_findings(cfg, sets, scanned)]


def test_sound(cfg: dict) -> None:
    assert _findings(cfg) == []


def test_no_sets() -> None:
    kinds = [(severity, kind) for severity, _, kind in _findings({})]
    assert kinds == [(ERROR, 'missing set'), (WARNING, 'missing set'), (WARNING, 'missing set')]


@pytest.mark.parametrize('head', ['bbox_head', 'mask_head'])
def test_number_of_classes(cfg: dict, head: str) -> None:
    heads = cfg['model']['detector']['roi_head']
    one = heads[head][1] if head == 'bbox_head' else heads[head]
    one['num_classes'] = 80
    assert _findings(cfg) == [(ERROR, 'model', 'other number of classes')]
    one['class_agnostic'] = True
    assert _findings(cfg) == []


@pytest.mark.parametrize('loss', [dict(type='SeesawLoss', num_classes=80), dict(type=SeesawLoss)])
def test_number_of_classes_of_seesaw_loss(cfg: dict, loss: dict) -> None:
    head = cfg['model']['detector']['roi_head']['bbox_head'][1]
    head['loss_cls'] = loss
    assert _findings(cfg) == [(ERROR, 'model', 'other number of classes')]
    loss['num_classes'] = head['num_classes']
    assert _findings(cfg) == []


def test_classes_that_are_wrong_say_nothing_about_the_heads(cfg: dict) -> None:
    cfg['train_dataloader']['dataset']['datasets'][0]['metainfo'] = dict(classes=('a', 'b', 'nil'))
    assert _findings(cfg) == []


@pytest.mark.parametrize('installed', [False, True])
def test_weights_of_torchvision(
    cfg: dict, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        'find_spec',
        lambda name: (installed or None) if name == 'torchvision' else find_spec(name),
    )
    weights = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    cfg['model']['detector']['backbone'] = dict(stages=[dict(init_cfg=weights)])
    key = 'model.detector.backbone.stages.0.init_cfg'
    assert _findings(cfg) == ([] if installed else [(WARNING, key, 'missing package')])
    weights['checkpoint'] = 'resnet50.pth'
    assert _findings(cfg) == [(ERROR, key, 'missing file')]
    weights['checkpoint'] = __file__
    assert _findings(cfg) == []


def test_labeller(cfg: dict) -> None:
    hook = cfg['custom_hooks'][1]
    hook['labeled_ann_file'] = cfg['val_evaluator']['ann_file']
    assert _findings(cfg) == [(WARNING, 'RareBoostPseudoLabeler', 'other file')]
    hook['labeled_ann_file'] = 'nowhere.json'
    assert _findings(cfg) == [(ERROR, 'RareBoostPseudoLabeler', 'missing file')]


def test_evaluator(cfg: dict) -> None:
    evaluator = cfg['val_evaluator']
    evaluator['ann_file'] = evaluator['labeled_ann_file']
    assert _findings(cfg) == [(WARNING, 'val_evaluator', 'other file')]
    evaluator['ann_file'] = 'nowhere.json'
    assert _findings(cfg) == [(ERROR, 'val_evaluator', 'missing file')]
    # The same evaluator for the test is not reported twice.
    cfg['test_evaluator'] = copy.deepcopy(evaluator)
    assert len(_findings(cfg)) == 1


@pytest.mark.parametrize(
    ('change', 'severity', 'kind'),
    [
        (dict(source_ratio=[1]), ERROR, 'other number of sources'),
        (dict(batch_size=3, source_ratio=[2, 1]), WARNING, 'other batch size'),
        (dict(batch_size=16), ERROR, 'other batch size'),
        (dict(source_ratio=[9, 1]), ERROR, 'source without an image in the batch'),
    ],
)
def test_sampler(cfg: dict, change: dict, severity: str, kind: str) -> None:
    cfg['train_dataloader']['sampler'].update(change)
    assert _findings(cfg) == [(severity, 'train_dataloader.sampler', kind)]


@pytest.mark.parametrize(('size', 'ratio'), [(5, [1, 4]), (8, [1, 1]), (7, [2, 1, 1]), (3, [1, 9])])
def test_shares_as_the_host_counts_them(size: int, ratio: list[int]) -> None:
    class Sets:
        datasets = [range(9)] * len(ratio)
        cumulative_sizes = np.cumsum([9] * len(ratio)).tolist()

        def __len__(self) -> int:
            return self.cumulative_sizes[-1]

    sampler = MultiSourceSampler(Sets(), size, ratio, seed=0)
    assert batch_shares(size, ratio) == sampler.num_per_source


@pytest.mark.parametrize(
    ('shares', 'loaded'),
    [([1, 1], 2), ([2, 2], 2), ([2, 2], 3), ([1, 3], 3), ([4, 4], 5), ([1, 1], 3)],
)
def test_a_batch_that_lacks_a_source_as_the_loader_cuts_it(shares: list[int], loaded: int) -> None:
    order = itertools.cycle([0] * shares[0] + [1] * shares[1])
    batches = [set(itertools.islice(order, loaded)) for _ in range(50)]
    assert batches_are_mixed(shares, loaded) == all(len(batch) == 2 for batch in batches)
    assert not batches_are_mixed(shares, 0) and not batches_are_mixed([0, 2], loaded)


def test_weights_to_start_from_that_are_not_there(cfg: dict) -> None:
    cfg['load_from'] = 'gone.pth'
    assert _findings(cfg) == [(ERROR, 'load_from', 'missing file')]
    cfg['load_from'] = __file__
    assert _findings(cfg) == []


@pytest.mark.parametrize('read', [False, True])
def test_empty_aspect_group(cfg: dict, read: bool) -> None:
    cfg['train_dataloader']['sampler']['type'] = 'GroupMultiSourceSampler'
    assert _findings(cfg, read) == []
    folder = Path(cfg['train_dataloader']['dataset']['datasets'][1]['data_root'])
    # The tiny pictures are landscape and portrait in turn.
    for path in sorted(folder.iterdir())[1::2]:
        path.unlink()
    kinds = [kind for _, _, kind in _findings(cfg, read)]
    # A folder's sizes are known only where its images are read.
    assert kinds == (['empty aspect group'] if read else [])


def test_weights_in_a_file_that_is_not_there(tmp_path: Path) -> None:
    def found(checkpoint: str) -> list[Finding]:
        init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        cfg = dict(model=dict(detector=dict(init_cfg=init_cfg)))
        return [f for f in config_findings(cfg, ()) if f.kind == 'missing file']

    (tmp_path / 'here.pth').touch()
    assert found(str(tmp_path / 'here.pth')) == [] == found('open-mmlab://resnet50_caffe')
    (finding,) = found(str(tmp_path / 'gone.pth'))
    assert finding.severity == ERROR and 'gone.pth' in finding.detail
    assert finding.subject == 'model.detector.init_cfg'
