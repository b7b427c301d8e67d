"""Two gloo processes train, validate, save and resume as ``--launcher pytorch`` has it.

Run as a script, this file is one rank. Everything is mmengine's Runner's but the start of the
process group: its own takes a CUDA device for granted.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.run_records import AUDIT_FILE, PSEUDO_LABELS_FILE
from tests.support.demo_training import ITERS, SUPERVISED, make_config, make_shapes
from tests.support.ranks import run_ranks

RANKS = 2
# Of a hang; a training takes a tenth of it.
TIMEOUT_S = 300
# Unlabelled images of a rank and iteration.
UNLABELED = 1
# The first after half an interval of unlabelled images.
REFRESHES = [3, 4, 6, 8]

pytestmark = pytest.mark.slow


class Notes(Hook):
    """What a rank saw."""

    def __init__(self) -> None:
        self.images: list[list[str]] = []
        self.losses: list[float] = []
        self.metrics: dict[str, float] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        samples = [s for branch in data_batch['data_samples'].values() for s in branch if s]
        self.images.append(sorted({sample.img_path for sample in samples}))
        self.losses.append(float(outputs['loss'].detach()))

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self.metrics = dict(metrics)


def launch(config: Path, name: str, resume: int = 0) -> list[dict[str, Any]]:
    """Train on every rank, perhaps from a checkpoint of ``whole``; what each of them noted."""
    run_ranks(RANKS, __file__, [str(config), name, str(resume)], TIMEOUT_S)
    return [
        torch.load(config.parent / f'{name}_{rank}.pth', weights_only=True) for rank in range(RANKS)
    ]


@pytest.fixture(scope='module')
def config(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('ranks')
    shapes = make_shapes(folder / 'shapes')
    cfg = make_config(repository, shapes, folder, workers=1, validate=True)
    cfg.custom_hooks.append(dict(type='mmdet_softpl.QuickResumeHook'))
    # Every rank has running means of its own, as in any training of mmengine's.
    cfg.model.detector.backbone.norm_eval = True
    path = folder / 'config.py'
    cfg.dump(str(path))
    return path


@pytest.fixture(scope='module')
def whole(config: Path) -> list[dict[str, Any]]:
    return launch(config, 'whole')


def test_ranks_learn_one_network_from_their_own_images(whole: list[dict[str, Any]]) -> None:
    first, second = whole
    assert first['images'] != second['images']
    assert first['losses'] != second['losses']
    assert all(len(rank['losses']) == ITERS for rank in whole)
    for name, value in first['state_dict'].items():
        if not name.removeprefix('class_state.').startswith(ClassState.ACCUMULATORS):
            assert torch.equal(value, second['state_dict'][name]), name
    for name, value in first['history'].items():
        assert torch.equal(value, second['history'][name]), name
    assert first['history']['total_images'] == RANKS * UNLABELED * (ITERS - SUPERVISED)
    assert first['history']['total_kept'].sum() > 0
    assert (first['state_dict']['class_state.boosts'] != 1).any()


def test_validation_gathers_all_images(config: Path, whole: list[dict[str, Any]]) -> None:
    """Rank 0 has the metrics of one process that sees every image."""
    cfg = Config.fromfile(config, format_python_code=False)
    cfg.work_dir = str(config.parent / 'alone')
    cfg.load_from = str(config.parent / 'whole' / f'iter_{ITERS}.pth')
    cfg.experiment_name = 'alone'
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    notes = Notes()
    runner.register_hook(notes)
    runner.val()
    ranks = whole[0]['metrics']
    assert ranks.keys() == notes.metrics.keys() and len(ranks) > 10
    # It finds nothing yet, and its errors are those of all its detections.
    assert ranks['teacher/longtail/ece'] > 0.1
    for name, value in notes.metrics.items():
        assert ranks[name] == pytest.approx(value, abs=1e-4, nan_ok=True), name


def test_one_rank_writes(config: Path, whole: list[dict[str, Any]]) -> None:
    work_dir = config.parent / 'whole'
    audit = json.loads((work_dir / AUDIT_FILE).read_text())
    assert audit['iteration'] == ITERS
    assert audit['unlabelled_images_seen'] == RANKS * UNLABELED * (ITERS - SUPERVISED)
    (lines,) = work_dir.rglob(PSEUDO_LABELS_FILE)
    _, *refreshes = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record['iter'] for record in refreshes] == REFRESHES


@pytest.mark.parametrize('stop', [6, 5], ids=['at a refresh', 'between two'])
def test_resume(config: Path, whole: list[dict[str, Any]], stop: int) -> None:
    """Each rank goes on with its own images, and what is lost is less than an interval's."""
    resumed = launch(config, f'from_{stop}', resume=stop)
    for before, after in zip(whole, resumed, strict=True):
        assert after['images'] == before['images'][stop:]
    first, second = resumed
    for name, value in first['state_dict'].items():
        if not name.removeprefix('class_state.').startswith(ClassState.ACCUMULATORS):
            assert torch.equal(value, second['state_dict'][name]), name
            assert torch.isfinite(value).all(), name
    lost = (RANKS - 1) * UNLABELED * (stop - max(i for i in REFRESHES if i <= stop))
    everything = whole[0]['history']['total_images']
    assert first['history']['total_images'] == everything - lost
    assert first['history']['num_iters'] == ITERS - SUPERVISED


def main() -> None:
    config, name, resume = sys.argv[1:]
    folder = Path(config).parent
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous_{name}',
        rank=int(os.environ['RANK']),
        world_size=int(os.environ['WORLD_SIZE']),
    )
    cfg = Config.fromfile(config, format_python_code=False)
    cfg.launcher = 'pytorch'
    # mmengine's default asks for a CUDA device; the rest of it is this.
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
    )
    cfg.work_dir = str(folder / name)
    if int(resume):
        cfg.resume, cfg.load_from = True, str(folder / 'whole' / f'iter_{resume}.pth')
    cfg.experiment_name = name
    runner = Runner.from_cfg(cfg)
    notes = Notes()
    runner.register_hook(notes)
    runner.train()
    labeler = next(h for h in runner.hooks if type(h).__name__ == 'RareBoostPseudoLabeler')
    found = dict(
        images=notes.images,
        losses=notes.losses,
        metrics={key: float(value) for key, value in notes.metrics.items()},
        state_dict=runner.model.module.state_dict(),
        history=dict(labeler.history),
    )
    torch.save(found, folder / f'{name}_{os.environ["RANK"]}.pth')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
