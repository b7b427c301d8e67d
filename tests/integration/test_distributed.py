"""Two gloo processes against one on the same images; ranks with nothing to do hang nobody.

Run as a script, this file is one rank.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.support.ranks import run_ranks

IMAGES = 4
ITERS = 4
# Of a hang; both ranks together take a fraction of it.
TIMEOUT_S = 240
# What rank 1 lacks; rank 0 always has everything.
# The last one: in the supervised phase, where the unsupervised losses complete no graph, and
# with mmdet's own box head, which returns no class loss then.
POVERTY = ('nothing', 'pseudo-label', 'labelled positive', 'proposal', 'proposal (supervised)')


@pytest.fixture(scope='module')
def ann_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('data') / 'train.json'
    annotations = [
        dict(id=i, image_id=i % 8, category_id=i % 5 + 1, bbox=[1, 1, 5, 5], area=25, iscrowd=0)
        for i in range(20)
    ]
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', height=96, width=96) for i in range(8)],
        categories=[dict(id=c + 1, name=f'class_{c}') for c in range(5)],
        annotations=annotations,
    )
    path.write_text(json.dumps(content))
    return path


def launch(job: str, world_size: int, ann_file: Path, folder: Path, *args: str) -> list[Any]:
    """Results of each rank."""
    arguments = [job, str(world_size), str(ann_file), str(folder), *args]
    run_ranks(world_size, __file__, arguments, TIMEOUT_S)
    return [
        torch.load(folder / f'{job}_{world_size}_{rank}.pth', weights_only=True)
        for rank in range(world_size)
    ]


@pytest.fixture(scope='module')
def statistics(ann_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp('statistics')
    alone = launch('statistics', 1, ann_file, folder)[0]
    return alone, launch('statistics', 2, ann_file, folder)


def test_two_processes_have_the_statistics_of_one(statistics: Any) -> None:
    alone, ranks = statistics
    for rank in ranks:
        assert rank.keys() == alone.keys()
        for key, value in alone.items():
            assert torch.allclose(rank[key], value, rtol=1e-4, atol=1e-5), key


def test_the_statistics_say_something(statistics: Any) -> None:
    """Equal zeros would prove nothing."""
    alone, _ = statistics
    assert alone['hook.histogram'].sum() > 50
    assert alone['hook.total_kept'].sum() > 10
    assert alone['hook.total_images'] == 2 * IMAGES
    assert alone['after.total_images'] == 3 * IMAGES
    assert alone['after.total_kept'].sum() > alone['hook.total_kept'].sum()
    assert (alone['state.boosts'] > 1).any()
    assert alone['state.thresholds'].unique().numel() > 1
    assert alone['state.reliability'][1].sum() > 0
    assert alone['state.offsets'].abs().sum() > 0
    assert (alone['head.prototype_counts'] > 0).all()
    assert alone['head.similarity_weights'].sum() > 0
    assert alone['host.hook.total_images'] == 2 * IMAGES
    assert alone['host.hook.total_kept'].sum() > 10
    assert alone['host.state.thresholds'].unique().numel() > 1


@pytest.fixture(scope='module')
def trainings(ann_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return launch('training', 2, ann_file, tmp_path_factory.mktemp('training'))


@pytest.mark.parametrize('name', ['mask-rcnn', 'cascade-mask-rcnn'])
@pytest.mark.parametrize('lack', POVERTY)
def test_ddp_trains_when_a_rank_lacks_something(trainings: Any, lack: str, name: str) -> None:
    """Without find_unused_parameters: every parameter is in every rank's graph."""
    first, second = (rank[f'{name}, {lack}'] for rank in trainings)
    assert first.keys() == second.keys()
    for key, value in first.items():
        # Thresholds are what rank 1 is made poor with.
        if key != 'state.thresholds' and not key.startswith('own.'):
            assert torch.equal(value, second[key]), key
    assert first['own.finite'] and second['own.finite']
    # The poor rank really lacked it.
    if lack == 'pseudo-label':
        assert first['own.kept'] > 0 and second['own.kept'] == 0
    if lack.startswith('proposal'):
        assert first['own.rois'] > 0 and second['own.rois'] == 0
    if lack == 'nothing':
        assert first['own.moved'] > 0


def build(name: str, smoothed: bool = True, **cfg: Any) -> Any:
    """The same tiny detector with the same weights on every rank."""
    from mmdet.registry import MODELS

    from tests.support.tiny import (
        GENEROUS,
        detector_config,
        lively,
        semi_config,
        use_smoothed_head,
    )

    torch.manual_seed(0)
    detector = detector_config(name)
    if smoothed:
        use_smoothed_head(detector, warmup_iters=0, refresh_interval=2)
    return lively(MODELS.build(semi_config(detector, **{**GENEROUS, **cfg})))


def labeler(ann_file: str, detector: Any) -> Any:
    from mmdet_softpl.engine import RareBoostPseudoLabeler

    hook = RareBoostPseudoLabeler(
        ann_file, fixed_thr=0.15, thr_range=(0.1, 0.9), min_count=5, interval=2
    )
    hook.class_state = detector.class_state
    hook._on_ours = True
    hook.policy.set_initial(hook.class_state, hook.statistics)
    return hook


def statistics_job(rank: int, world_size: int, ann_file: str) -> dict[str, torch.Tensor]:
    """Every image is seen by one rank; then all statistics are refreshed, twice."""
    from mmdet_softpl.engine.label_refresh import forget_teacher
    from tests.support.tiny import multi_batch

    detector = build('mask-rcnn', cross_class_iou_thr=1.0)
    hook = labeler(ann_file, detector)
    detector.class_state.boosts[:2] = 2.0
    head = detector.student.roi_head.bbox_head
    # The refreshes below are called; none by a counter.
    head.refresh_interval = 1000
    inputs, samples = multi_batch(batch_size=IMAGES)
    mine = slice(rank, None, world_size)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        detector.label(inputs['unsup_teacher'][mine], samples['unsup_teacher'][mine])
        detector.observe_labelled(inputs['sup'][mine], samples['sup'][mine])
        features = torch.randn(64, 16, 7, 7, generator=generator)[mine]
        labels = torch.randint(0, 6, (64,), generator=generator)[mine]
        logits, deltas = head(features)
        empty = torch.zeros(len(labels), 4)
        rois = torch.zeros(len(labels), 5)
        head.loss(logits, deltas, rois, labels, torch.ones(len(labels)), empty, empty)
        hook.refresh()
        detector.refresh_calibration()
        head.refresh()
    result = {f'state.{k}': v for k, v in detector.class_state.state_dict().items()}
    result |= {f'hook.{k}': v for k, v in hook.history.items()}
    result |= {f'head.{k}': v for k, v in head.named_buffers()}
    result = _detached(result)
    # What was seen of a teacher that goes between two refreshes stays in the audit's sums.
    detector.label(inputs['unsup_teacher'][mine], samples['unsup_teacher'][mine])
    forget_teacher(detector.class_state, hook.history)
    result |= {f'after.{k}': hook.history[k] for k in ('total_kept', 'total_images')}
    return result | host_statistics(mine, ann_file)


def host_statistics(mine: slice, ann_file: str) -> dict[str, torch.Tensor]:
    """The same for the labels of mmdet's own detector."""
    from mmdet.registry import MODELS

    from mmdet_softpl.engine import RareBoostPseudoLabeler
    from mmdet_softpl.engine.host_adapter import HostLabeling
    from tests.support.tiny import lively, multi_batch, soft_teacher_config

    torch.manual_seed(0)
    detector = lively(MODELS.build(soft_teacher_config()))
    hook = RareBoostPseudoLabeler(ann_file, fixed_thr=0.15, thr_range=(0.1, 0.9), min_count=5)
    hook.policy.set_initial(hook.class_state, hook.statistics)
    HostLabeling(detector, hook.class_state).attach()
    inputs, samples = multi_batch(batch_size=IMAGES)
    for _ in range(2):
        detector.get_pseudo_instances(inputs['unsup_teacher'][mine], samples['unsup_teacher'][mine])
        hook.refresh()
    state = hook.class_state.state_dict()
    found = {f'host.state.{k}': v for k, v in state.items()}
    return found | {f'host.hook.{k}': v for k, v in hook.history.items()}


def training_job(rank: int, world_size: int, ann_file: str) -> dict[str, dict[str, Any]]:
    """A few iterations under DistributedDataParallel for each kind of poverty of rank 1."""
    results = {}
    for name in ('mask-rcnn', 'cascade-mask-rcnn'):
        for lack in POVERTY:
            print(f'{name}, rank 1 without {lack}', flush=True)
            results[f'{name}, {lack}'] = train(
                name, lack if rank == 1 else '', ann_file, supervised='supervised' in lack
            )
    return results


def train(name: str, lack: str, ann_file: str, supervised: bool) -> dict[str, Any]:
    from mmengine.model import MMDistributedDataParallel

    from tests.support.tiny import multi_batch

    strict = dict(score_thr=1.0, objectness_thr=1.0) if lack == 'pseudo-label' else {}
    detector = build(name, smoothed=not supervised, **strict)
    detector.unsup_scale = 0.0 if supervised else 1.0
    hook = labeler(ann_file, detector)
    if strict:
        detector.class_state.thresholds.fill_(1.0)
        hook.policy = replace(hook.policy, thr_range=(1.0, 1.0))
    rank = dist.get_rank()
    inputs, samples = multi_batch(batch_size=2 * dist.get_world_size())
    mine = slice(rank, None, dist.get_world_size())
    inputs = {key: value[mine] for key, value in inputs.items()}
    samples = {key: value[mine] for key, value in samples.items()}
    if lack.startswith('proposal'):
        for network in (detector.student, detector.teacher):
            network.train_cfg.rpn_proposal.min_bbox_size = 10000
            network.rpn_head.test_cfg.min_bbox_size = 10000
    if lack and lack not in ('nothing', 'pseudo-label'):
        for sample in samples['sup']:
            sample.gt_instances = sample.gt_instances[:0]
    rois: list[int] = []
    stage = detector.student.roi_head.bbox_head
    stage = stage[0] if isinstance(stage, torch.nn.ModuleList) else stage
    stage.register_forward_hook(lambda module, args, output: rois.append(len(output[0])))
    model = MMDistributedDataParallel(detector, broadcast_buffers=False)
    before = next(detector.student.roi_head.bbox_head.parameters()).detach().clone()
    optimizer = torch.optim.SGD(detector.student.parameters(), lr=1e-3)
    folder = tempfile.TemporaryDirectory()
    scalars = SimpleNamespace(add_scalars=lambda *args, **kwargs: None)
    logger = SimpleNamespace(info=lambda *args: None)
    finite, kept = True, 0.0
    for iteration in range(ITERS):
        losses = model(inputs, samples, mode='loss')
        parts = [
            part
            for key, value in losses.items()
            if 'loss' in key
            for part in (value if isinstance(value, list) else [value])
        ]
        loss = torch.stack([part.mean() for part in parts]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finite = finite and bool(torch.isfinite(loss))
        kept += float(detector.class_state.kept.sum())
        runner = SimpleNamespace(
            model=model, iter=iteration, visualizer=scalars, logger=logger, log_dir=folder.name
        )
        if strict:
            # Thresholds are the same on all ranks in a training; here they are what is poor.
            detector.class_state.thresholds.fill_(1.0)
        hook.after_train_iter(runner, iteration)
    result: dict[str, Any] = dict(detector.student.named_parameters())
    result |= {f'state.{k}': v for k, v in detector.class_state.named_buffers()}
    for key, value in detector.student.named_buffers():
        if 'bbox_head' in key and 'num_iters' not in key:
            result[key] = value
    after = next(detector.student.roi_head.bbox_head.parameters()).detach()
    own = dict(finite=finite, kept=kept, rois=sum(rois), moved=float((after - before).abs().sum()))
    return result | {f'own.{k}': v for k, v in own.items()}


def main() -> None:
    import mmdet_softpl  # noqa: F401

    job, world_size, ann_file, folder = sys.argv[1:]
    rank = os.environ['RANK']
    torch.set_num_threads(1)
    if int(world_size) > 1:
        dist.init_process_group(
            'gloo',
            init_method=f'file://{folder}/rendezvous_{job}',
            rank=int(rank),
            world_size=int(world_size),
            timeout=datetime.timedelta(seconds=TIMEOUT_S / 2),
        )
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    jobs = dict(statistics=statistics_job, training=training_job)
    result = jobs[job](int(rank), int(world_size), ann_file)
    torch.save(_detached(result), Path(folder) / f'{job}_{world_size}_{rank}.pth')
    if dist.is_initialized():
        dist.destroy_process_group()


def _detached(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _detached(v) for k, v in value.items()}
    return value.detach().clone() if torch.is_tensor(value) else value


if __name__ == '__main__':
    main()
