"""What is counted, not timed: bytes of state and between ranks, decodes.

Shape letters: **C** foreground classes, **D** feature size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from benchmarks.speed.records import Record, of_number
from mmdet_softpl.functional import smoothing_table
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.models.semi_train_cfg import DEFAULTS
from mmdet_softpl.models.smoothed_ce_head import SmoothedCEHead
from mmdet_softpl.shipped_configs import config_path

LABELLER_INTERVAL = 500
FEATURE_SIZE = 1024
RANKS = 8


def state_bytes(num_classes: int, feature_size: int = FEATURE_SIZE) -> int:
    """Bytes of similarity, prototypes, histograms, reliability and targets of one network."""
    head = _head(num_classes, feature_size)
    parts = (head, ClassState(num_classes, 0.5))
    # Kept between batches and no buffer.
    table = smoothing_table(torch.ones(num_classes, device='meta'), head.similarity)
    tensors = [*(buffer for part in parts for buffer in part.buffers()), *vars(table).values()]
    return sum(tensor.nbytes for tensor in tensors)


def _head(num_classes: int, feature_size: int) -> SmoothedCEHead:
    # On the meta device: the weights of the layers are not asked for.
    with torch.device('meta'):
        return SmoothedCEHead(
            in_channels=1,
            fc_out_channels=feature_size,
            roi_feat_size=1,
            num_classes=num_classes,
        )


def state_rows() -> list[Record]:
    """Memory of the class state, and whether it is linear in C."""
    num_classes = 13204
    small, large = state_bytes(num_classes // 2), state_bytes(num_classes)
    case = f'C = {num_classes:,}, D = {FEATURE_SIZE:,}'
    common = dict(case=case, device='any')
    return [
        of_number(
            large / 1e6,
            what='class state, MB',
            against='',
            target=128,
            note='of the student, accumulators included; the teacher has a copy of the part that '
            'its box head keeps',
            **common,
        ),
        of_number(
            large / small,
            what='class state, growth when C doubles',
            against='',
            target=2.01,
            **common,
        ),
    ]


def reduced(head: nn.Module, state: ClassState) -> dict[str, tuple[int, int]]:
    """Name -> (bytes, iterations between two sums over ranks) of all statistics."""
    result = {
        name: (getattr(head, name).nbytes, head.refresh_interval)
        for name in ('feature_sums', 'feature_counts')
    }
    for name in ClassState.ACCUMULATORS:
        ours = name in ('new_reliability', 'offset_counts')
        every = DEFAULTS['refresh_interval'] if ours else LABELLER_INTERVAL
        result[name] = (getattr(state, name).nbytes, every)
    return result


def bytes_per_iteration(sizes: Iterable[tuple[int, int]], ranks: int) -> float:
    """What a rank sends in an iteration, on average, in a ring all-reduce."""
    return 2 * (ranks - 1) / ranks * sum(size / every for size, every in sizes)


def rank_rows() -> list[Record]:
    """Bytes between ranks beyond the gradients."""
    records = []
    for num_classes in (1203, 13204):
        sizes = reduced(_head(num_classes, FEATURE_SIZE), ClassState(num_classes, 0.5))
        records.append(
            of_number(
                bytes_per_iteration(sizes.values(), RANKS) / 1e6,
                what='statistics between ranks, MB an iteration',
                against='',
                case=f'{RANKS} ranks, C = {num_classes:,}, D = {FEATURE_SIZE:,}',
                device='any',
                target=1,
                note='calculated from the sizes of what is summed; on average, in bursts of up to '
                f'{max(size for size, _ in sizes.values()) / 1e6:.1f} MB a tensor',
            )
        )
    return records


def count_decodes(name: str) -> int:
    """How often one unlabelled image is decoded for its weak and its strong view."""
    cfg = Config.fromfile(config_path(name))
    pipeline = Compose(cfg.unlabeled_dataset.pipeline)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'image.jpg')
        cv2.imwrite(path, np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8))
        info: dict[str, Any] = dict(img_path=path, img_id=0, height=96, width=128, instances=[])
        with mock.patch.object(mmcv, 'imfrombytes', wraps=mmcv.imfrombytes) as decode:
            pipeline(info)
    return decode.call_count


def decode_rows() -> list[Record]:
    """Decoding of the unlabelled branch."""
    name = 'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco'
    return [
        of_number(
            count_decodes(name),
            what='decodes of an unlabelled image for both views',
            against='',
            case=name,
            device='cpu',
            target=1,
        )
    ]
