"""Bytes that two gloo processes exchange beyond the gradients, against what is written down.

Run as a script, this file is one rank.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

import mmdet_softpl  # noqa: F401  isort: skip
from benchmarks.speed.counts import FEATURE_SIZE, _head, bytes_per_iteration, reduced
from mmdet_softpl.engine.burn_in_mean_teacher_hook import copy_teacher
from mmdet_softpl.models.class_state import ClassState
from tests.support.ranks import run_ranks

TIMEOUT_S = 240
INTERVAL = 2
ITERS = 4


def test_two_ranks_exchange_the_bytes_written_down(tmp_path: Path) -> None:
    run_ranks(2, __file__, [str(tmp_path)], TIMEOUT_S)
    for rank in range(2):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert found['sent'] == found['written_down'] > 0
        # Nothing of ours is sent in the iterations between.
        assert [n > 0 for n in found['by_iteration']] == [False, True] * (ITERS // INTERVAL)


@pytest.mark.parametrize('num_classes', [1203, 13204])
def test_eight_ranks_stay_below_a_megabyte_an_iteration(num_classes: int) -> None:
    sizes = reduced(_head(num_classes, FEATURE_SIZE), ClassState(num_classes, 0.5))
    assert bytes_per_iteration(sizes.values(), ranks=8) <= 1e6


def work(rank: int) -> dict[str, Any]:
    """Train a tiny detector and count what goes through ``all_reduce``.

    The gradients do not: DistributedDataParallel sends them from C++.
    """
    from mmdet.registry import MODELS
    from mmengine.model import MMDistributedDataParallel
    from mmengine.registry import init_default_scope

    from tests.support.tiny import detector_config, multi_batch, semi_config, use_smoothed_head

    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = use_smoothed_head(detector_config('faster-rcnn'), refresh_interval=INTERVAL)
    cfg = dict(calibration_interval=1, refresh_interval=INTERVAL, student_correction=True)
    semi = MODELS.build(semi_config(detector, **cfg)).train()
    copy_teacher(semi.student, semi.teacher)
    model = MMDistributedDataParallel(semi, broadcast_buffers=False)
    inputs, samples = multi_batch(size=64)
    sent: list[int] = []
    by_iteration = []
    inner = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sent.append(tensor.nbytes)
        return inner(tensor, *args, **kwargs)

    with mock.patch.object(dist, 'all_reduce', counted):
        for _ in range(ITERS):
            before = sum(sent)
            losses = model(inputs, samples, mode='loss')
            model.module.parse_losses(losses)[0].backward()
            model.zero_grad()
            by_iteration.append(sum(sent) - before)
    sizes = reduced(model.module.student.roi_head.bbox_head, model.module.class_state)
    labeller = ('score_histogram', 'kept', 'mass', 'own_mass', 'num_images')
    ours = [size for name, (size, _) in sizes.items() if name not in labeller]
    return dict(
        sent=sum(sent),
        written_down=sum(ours) * (ITERS // INTERVAL),
        by_iteration=by_iteration,
    )


def main() -> None:
    (folder,) = sys.argv[1:]
    rank = os.environ['RANK']
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=int(rank), world_size=2
    )
    result = work(int(rank))
    (Path(folder) / f'{rank}.json').write_text(json.dumps(result))
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
