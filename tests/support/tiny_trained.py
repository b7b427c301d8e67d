"""A config file, its data and a checkpoint, as if a tiny training had just ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from tests.support.tiny import detector_config, semi_config, use_smoothed_head
from tests.support.tiny_data import write_data

CLASSES = ('cat', 'dog', 'owl', 'fox', 'bee')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]


def write_trained(root: Path, detector: str = 'mask-rcnn', **head: Any) -> tuple[str, str]:
    """Write ``config.py``, ``trained.pth`` and COCO-format data of 6 + 4 pictures below ``root``.

    The teacher is a random network that is sure of nothing; every label is kept. The head's
    prototypes are set, its similarity refreshed.

    Returns:
        The paths of config and checkpoint.
    """
    write_data(root, CLASSES, num_train=6)
    labelled = dict(
        type='CocoDataset',
        data_root=str(root),
        metainfo=dict(classes=CLASSES),
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=PIPELINE,
    )
    unlabelled = dict(
        type='mmdet_softpl.UnlabeledImageDataset',
        data_root=str(root),
        data_prefix=dict(img='unlabeled2017/'),
        pipeline=PIPELINE,
    )
    plain = use_smoothed_head(detector_config(detector, len(CLASSES)), **head)
    model = semi_config(plain, score_thr=0.0, max_per_img=3)
    cfg = Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['mmdet_softpl'], allow_failed_imports=False),
            model=model,
            train_dataloader=dict(
                dataset=dict(type='ConcatDataset', datasets=[labelled, unlabelled])
            ),
            val_dataloader=dict(dataset=dict(labelled, test_mode=True)),
        )
    )
    config, checkpoint = root / 'config.py', root / 'trained.pth'
    cfg.dump(str(config))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(cfg.model)
    heads = built.teacher.roi_head.bbox_head
    for one in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        # Large enough that the random labels differ.
        torch.nn.init.normal_(one.fc_cls.weight, std=0.5)
        if getattr(one, 'keeps_prototypes', False):
            one.feature_sums += torch.randn(one.feature_sums.shape) * 10
            one.feature_counts += 10
            one.refresh()
    for name, parameter in built.teacher.named_parameters():
        if name.endswith('conv_logits.bias'):
            # Random masks are mostly empty, and an empty one is not shown.
            torch.nn.init.constant_(parameter, 1.0)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(meta=meta, state_dict=built.state_dict()), checkpoint)
    return str(config), str(checkpoint)
