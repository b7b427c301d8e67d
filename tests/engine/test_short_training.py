"""Which metric counts; cli/test_pilot.py and cli/test_tune.py train and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

from mmdet_softpl.checkpoint_files import last_checkpoint
from mmdet_softpl.engine.short_training import (
    main_metric,
    read_validations,
    train_or_resume,
)


@MODELS.register_module()
class LineForShortTraining(BaseModel):
    """Fits one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: list, mode: str = 'tensor') -> dict | list:
        if mode == 'predict':
            return [dict(weight=float(self.weight))]
        return dict(loss=(self.weight - torch.tensor(inputs)).square().mean())


@METRICS.register_module()
class WeightForShortTraining(BaseMetric):
    """The number."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['weight'] for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(weight=results[0])


@DATASETS.register_module()
class NumbersForShortTraining:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, float]:
        return dict(inputs=float(index))


def line_config() -> Config:
    return Config(
        dict(
            default_scope='mmengine',
            model=dict(type='LineForShortTraining'),
            train_dataloader=dict(
                batch_size=2,
                dataset=dict(type='NumbersForShortTraining'),
                sampler=dict(type='InfiniteSampler'),
                collate_fn=dict(type='pseudo_collate'),
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=5),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=dict(interval=1)),
        )
    )


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (('student/longtail/segm_AP', 'teacher/longtail/segm_AP'), 'teacher/longtail/segm_AP'),
        (('coco/bbox_mAP', 'coco/segm_mAP'), 'coco/segm_mAP'),
        (('longtail/bbox_AP50', 'longtail/bbox_AP'), 'longtail/bbox_AP'),
    ],
)
def test_main_metric(names: tuple[str, ...], expected: str) -> None:
    metrics = {name: float(i) for i, name in enumerate(names)}
    assert main_metric(metrics) == (expected, metrics[expected])


def test_no_metric() -> None:
    with pytest.raises(ValueError, match='only loss'):
        main_metric(dict(loss=1.0))


def test_what_is_over_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / 'iter_5.pth').write_bytes(b'')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_5.pth'))
    # There is no model in this config: building one would fail.
    assert train_or_resume(Config(dict(train_cfg=dict(max_iters=5))), tmp_path).name == 'iter_5.pth'


def test_the_checkpoint_that_is_gone_is_made_up_for(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / 'nothing') is None
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_8.pth'))
    assert last_checkpoint(tmp_path) is None
    for name in ('iter_4.pth', 'iter_10.pth', 'iter_12.pth'):
        torch.save(dict(weight=torch.zeros(100)), tmp_path / name)
    # Half written when it was stopped.
    half = (tmp_path / 'iter_12.pth').read_bytes()
    (tmp_path / 'iter_12.pth').write_bytes(half[: len(half) // 2])
    # Weights alone, written later.
    torch.save(dict(weight=torch.zeros(100)), tmp_path / 'best_segm_iter_10.pth')
    assert last_checkpoint(tmp_path) == tmp_path / 'iter_10.pth'
    torch.save({}, tmp_path / 'iter_8.pth')
    assert last_checkpoint(tmp_path) == tmp_path / 'iter_8.pth', 'named, and there'


def test_stopped_while_a_checkpoint_is_written_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever Ctrl-C comes, the next call finds a checkpoint and trains to the end."""
    save, stop_at = Runner.save_checkpoint, ['iter_3.pth']

    def interrupted(self: Runner, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        if [filename] == stop_at:
            stop_at.clear()
            (Path(out_dir) / filename).write_bytes(b'PK half')
            raise KeyboardInterrupt
        save(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(Runner, 'save_checkpoint', interrupted)
    started_from: list[int] = []
    monkeypatch.setattr(Hook, 'before_train', lambda self, runner: started_from.append(runner.iter))
    with pytest.raises(KeyboardInterrupt):
        train_or_resume(line_config(), tmp_path / 'run')
    assert train_or_resume(line_config(), tmp_path / 'run').name == 'iter_5.pth'
    assert sorted(set(started_from)) == [0, 2]


def test_stopped_in_a_validation_it_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config() -> Config:
        cfg = line_config()
        # Every second iteration, from the fourth on every fourth.
        cfg.train_cfg.update(val_interval=2, dynamic_intervals=[(4, 4)])
        loader = dict(cfg.train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
        cfg.merge_from_dict(
            dict(
                val_cfg=dict(type='ValLoop'),
                val_dataloader=loader,
                val_evaluator=dict(type='WeightForShortTraining'),
                randomness=dict(seed=0),
            )
        )
        return cfg

    train_or_resume(config(), tmp_path / 'whole')
    whole = read_validations(tmp_path / 'whole')
    assert whole.keys() == {2, 4, 5}
    # The checkpoint of iteration 4 is written, its validation is not.
    with monkeypatch.context() as patch:
        plain, calls = WeightForShortTraining.compute_metrics, []

        def interrupted(self: WeightForShortTraining, results: list[float]) -> dict[str, float]:
            calls.append(results)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return plain(self, results)

        patch.setattr(WeightForShortTraining, 'compute_metrics', interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_or_resume(config(), tmp_path / 'run')
    assert read_validations(tmp_path / 'run').keys() == {2}
    heard: dict[int, dict[str, float]] = {}
    train_or_resume(config(), tmp_path / 'run', heard.__setitem__)
    assert heard.keys() == {4, 5}
    found = read_validations(tmp_path / 'run')
    assert found.keys() == whole.keys() and found[4] == heard[4]
    trained = torch.load(tmp_path / 'run' / 'iter_4.pth', weights_only=False)['state_dict']
    assert found[4]['weight'] == pytest.approx(float(trained['weight']))


def test_what_never_validates_is_not_validated_when_it_is_over(tmp_path: Path) -> None:
    """As the trainings of a pilot, which evaluates them itself."""
    (tmp_path / 'iter_5.pth').write_bytes(b'')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_5.pth'))
    cfg = Config(dict(train_cfg=dict(max_iters=5, val_begin=6), val_cfg=dict(type='ValLoop')))
    # There is no model in this config: building one would fail.
    assert train_or_resume(cfg, tmp_path).name == 'iter_5.pth'
    cfg.train_cfg.val_begin = 5
    with pytest.raises(KeyError, match='model'):
        train_or_resume(cfg, tmp_path)


def test_validations(tmp_path: Path) -> None:
    assert read_validations(tmp_path) == {}
    (tmp_path / 'validations.json').write_text(json.dumps({'5': {'a': 1.0}}))
    assert read_validations(tmp_path) == {5: {'a': 1.0}}
