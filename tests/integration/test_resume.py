"""A training that is stopped and resumed goes on as if nothing had happened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.engine import RareBoostPseudoLabeler
from mmdet_softpl.installed_stack import release
from tests.support.demo_training import ITERS, SUPERVISED, make_config, make_shapes

# An older torch knows no way to allow mmengine's message hub.
SAFE = release(torch.__version__) >= (2, 6)


class Recorder(Hook):
    """Losses by iteration."""

    def __init__(self) -> None:
        self.losses: dict[int, dict[str, float]] = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses[runner.iter] = {k: float(v.detach()) for k, v in outputs.items()}


class StopAfter(Hook):
    """Ends the process's training after an iteration, as a kill right after a checkpoint."""

    def __init__(self, iters: int) -> None:
        self.iters = iters

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iters:
            runner.train_loop.stop_training = True


@dataclass
class Run:
    """What a training left behind."""

    losses: dict[int, dict[str, float]]
    state_dict: dict[str, torch.Tensor]
    history: dict[str, torch.Tensor]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp('shapes'))


def run(cfg: Config, name: str, stop_after: int | None = None, resume: bool = False) -> Run:
    cfg = cfg.copy()
    # Instances of mmengine's managers are kept by name for the life of the process.
    cfg.experiment_name = f'{Path(cfg.work_dir).name}_{name}'
    cfg.resume = resume
    if resume:
        cfg.load_from = f'{cfg.work_dir}/iter_{stop_after}.pth'
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    if stop_after and not resume:
        runner.register_hook(StopAfter(stop_after))
    runner.train()
    labeler = next(h for h in runner.hooks if isinstance(h, RareBoostPseudoLabeler))
    return Run(
        recorder.losses,
        {k: v.clone() for k, v in runner.model.state_dict().items()},
        {k: v.clone() for k, v in labeler.history.items()},
    )


def assert_same(resumed: Run, whole: Run, start: int) -> None:
    assert sorted(resumed.losses) == list(range(start, ITERS))
    for iteration, losses in resumed.losses.items():
        expected = whole.losses[iteration]
        assert losses.keys() == expected.keys()
        for key, value in losses.items():
            assert math.isclose(value, expected[key], rel_tol=1e-4, abs_tol=1e-4), (
                f'iteration {iteration}: {key} is {value}, {expected[key]} without the stop'
            )
    for name, tensor in resumed.state_dict.items():
        assert torch.allclose(tensor, whole.state_dict[name], rtol=1e-4, atol=1e-5), name
    for name, tensor in resumed.history.items():
        assert torch.allclose(tensor, whole.history[name], rtol=1e-4, atol=1e-5), name


def assert_meaningful(whole: Run) -> None:
    """Otherwise equal curves would say nothing."""
    first, last = whole.losses[0], whole.losses[ITERS - 1]
    assert not any(key.startswith('unsup') for key in first)
    for key in ('unsup_loss_cls', 'unsup_loss_bbox', 'unsup_loss_mask', 'sup_loss_mask'):
        assert last[key] > 0, key
    # Other data, other samples, other weights: the iterations differ by far more than 1e-4.
    assert abs(whole.losses[ITERS - 2]['loss'] - last['loss']) > 1e-2
    assert whole.history['num_iters'] == ITERS - SUPERVISED
    assert whole.history['total_kept'].sum() > 0
    head = 'student.roi_head.bbox_head.'
    assert whole.state_dict[f'{head}prototype_counts'].sum() > 0
    assert whole.state_dict['class_state.reliability'].sum() > 0


@pytest.fixture(scope='module')
def whole(repository: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The uninterrupted run without data workers, with its checkpoints."""
    work_dir = tmp_path_factory.mktemp('whole')
    cfg = make_config(repository, shapes, work_dir, workers=0, validate=False)
    result = run(cfg, 'whole')
    assert_meaningful(result)
    return cfg, result


@pytest.mark.parametrize(
    'stop', [pytest.param(1, id='supervised'), pytest.param(3, id='burn-in'), 5]
)
def test_the_loss_curve_goes_on(whole: Any, stop: int) -> None:
    """3 and 5 lie between two refreshes."""
    cfg, expected = whole
    resumed = run(cfg, f'resumed_{stop}', stop_after=stop, resume=True)
    assert_same(resumed, expected, stop)


def test_a_stop_writes_what_the_uninterrupted_run_writes(whole: Any, tmp_path: Path) -> None:
    """The checkpoints above come from a run that went on; a stopped one's are the same."""
    cfg, _ = whole
    stopped = cfg.copy()
    stopped.work_dir = str(tmp_path)
    run(stopped, 'stopped', stop_after=3)
    a = torch.load(tmp_path / 'iter_3.pth', weights_only=SAFE)
    b = torch.load(Path(cfg.work_dir) / 'iter_3.pth', weights_only=SAFE)
    for key, value in a['state_dict'].items():
        torch.testing.assert_close(value, b['state_dict'][key])
    assert torch.equal(a['random_state']['torch'], b['random_state']['torch'])


@pytest.mark.parametrize('labeler', [False, True])
def test_weights_of_another_training_bring_no_labelling_state(
    whole: Any, tmp_path: Path, labeler: bool
) -> None:
    cfg = whole[0].copy()
    cfg.load_from, cfg.work_dir = f'{cfg.work_dir}/iter_{ITERS}.pth', str(tmp_path)
    before = torch.load(cfg.load_from, weights_only=SAFE)['state_dict']
    assert before['num_iters'] == ITERS - SUPERVISED
    assert (before['class_state.boosts'] != 1).any()
    cfg.experiment_name = f'load_from_{labeler}'
    cfg.train_cfg.max_iters = 1
    mean_teacher, hook, *_ = cfg.custom_hooks
    cfg.custom_hooks = [mean_teacher, hook] if labeler else [mean_teacher]
    mean_teacher.update(supervised_iters=0, burn_in_iters=0, ramp_iters=0)
    hook.interval = 100
    cfg.model.semi_train_cfg.score_thr = 0.3
    runner = Runner.from_cfg(cfg)
    runner.train()
    model = runner.model
    expected = 0.05 if labeler else 0.3
    torch.testing.assert_close(
        model.class_state.thresholds, torch.full_like(model.class_state.thresholds, expected)
    )
    assert bool((model.class_state.boosts != 1).any()) == labeler
    assert model.num_iters == model._iter == 1
    name = 'roi_head.mask_head.conv_logits.bias'
    weights = model.student.state_dict()[name].cpu()
    assert not torch.equal(weights, before[f'student.{name}'])
    torch.testing.assert_close(weights, before[f'student.{name}'], rtol=0.1, atol=0.05)


@pytest.mark.slow
def test_with_data_workers_and_validations(repository: Path, shapes: Path, tmp_path: Path) -> None:
    """The checkpoint of iteration 4 is written right before a validation."""
    cfg = make_config(repository, shapes, tmp_path, workers=2, validate=True)
    expected = run(cfg, 'whole')
    resumed = run(cfg, 'resumed', stop_after=4, resume=True)
    assert_same(resumed, expected, 4)
