"""One process of the benchmark: trains a stem, a burn-in or an arm, and measures the arm.

`python -m benchmarks.longtail.job --preset cpu --arm 3 --seed 0 --out DIR --data DIR`; the
runner starts these. Everything of a run lies in its folder:

- ``settings.json``: the config it was begun with,
- ``iter_N.pth``: the two newest checkpoints, until ``final.pth`` (weights alone) replaces them,
- ``origin.json`` (commit, date, hardware), ``curves.json``, ``cost.json``, ``progress.json``,
- ``tune.json``, ``test.json``, ``pseudo.json``: the results, each written when it is whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import write_json

from .arms import ARMS
from .data import SPLITS
from .presets import PRESETS, Preset

STAGES = ('stem', 'burn-in', 'arm')
# What `rebalance.py` leaves in the folder of a run.
REBALANCED_FILE = 'rebalanced.json'


@dataclass(frozen=True)
class Job:
    """A stem, a burn-in or an arm with a seed.

    Attributes:
        arm: Name of the arm; of a stem or burn-in, the first of those that share it.
        seed: Of it.
        stage: ``'stem'``, ``'burn-in'`` or ``'arm'``, each of which goes on from the one before.
    """

    arm: str
    seed: int
    stage: str = 'arm'

    @property
    def name(self) -> str:
        """Name of its folder."""
        arm = ARMS[self.arm]
        shared = {'stem': arm.stem, 'burn-in': arm.burn_in, 'arm': self.arm}[self.stage]
        return f'{self.stage}-{shared}-seed{self.seed}'

    @property
    def needs(self) -> Job | None:
        """What it goes on from: the burn-in of an arm, the stem of a burn-in."""
        mine = ARMS[self.arm]
        if self.stage == 'arm':
            first = next(name for name, arm in ARMS.items() if arm.burn_in == mine.burn_in)
            return Job(first, self.seed, 'burn-in')
        if self.stage == 'burn-in':
            first = next(name for name, arm in ARMS.items() if arm.stem == mine.stem)
            return Job(first, self.seed, 'stem')
        return None

    def span(self, preset: Preset) -> tuple[int, int]:
        """Its first iteration and the one after its last."""
        ends = [0, preset.stem_iters, preset.supervised_iters, preset.max_iters]
        i = STAGES.index(self.stage)
        return ends[i], ends[i + 1]

    def folder(self, out: Path) -> Path:
        """Where it lies."""
        return out / 'runs' / self.name

    def is_done(self, out: Path, splits: tuple[str, ...]) -> bool:
        """Whether nothing is left to do."""
        folder = self.folder(out)
        files = ['final.pth']
        if self.stage == 'arm':
            files = [*(f'{s}.json' for s in splits), 'pseudo.json']
        return all((folder / name).is_file() for name in files)


def run_job(job: Job, preset: Preset, out: Path, data_root: Path, splits: tuple[str, ...]) -> None:
    """Train (or go on) and measure.

    Raises:
        ValueError: The folder, or that of what it goes on from, holds a run with other settings.
    """
    import torch

    from .arms import placed

    folder = job.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cfg = config_of(job, preset, device)
    claim(folder, comparable(cfg))
    if job.needs is not None:
        # What it goes on from must be what its config would train now.
        claim(job.needs.folder(out), comparable(config_of(job.needs, preset, device)))
    cfg = placed(cfg, data_root)
    cfg.work_dir = str(folder)
    # mmengine keeps loggers and hubs by this name.
    cfg.experiment_name = job.name

    if not (folder / 'final.pth').is_file():
        train(job, cfg, preset, out, data_root)
    if job.stage == 'arm':
        measure(cfg, preset, folder, data_root, splits)


def config_of(job: Job, preset: Preset, device: str) -> Any:
    """The config of a job; its data are not placed."""
    from .arms import arm_config, burn_in_config, stem_config

    cfg = arm_config(job.arm, preset, job.seed, device)
    if job.stage == 'stem':
        return stem_config(cfg, preset)
    return burn_in_config(cfg, preset) if job.stage == 'burn-in' else cfg


def comparable(cfg: Any) -> dict[str, Any]:
    """Settings without how many processes load the data, which does not matter.

    Runs from before the shipped configs had a normalised classifier do not name the plain one,
    which is the host's default.
    """
    from .arms import settings_of

    settings = settings_of(cfg)
    head = settings['model']['detector']['roi_head']['bbox_head']
    if head.get('cls_predictor_cfg') == {'type': 'Linear'}:
        del head['cls_predictor_cfg']
    # A variable of the shipped file, which nothing reads.
    settings['detector']['roi_head']['bbox_head'].pop('cls_predictor_cfg', None)
    for key in ('num_workers', 'persistent_workers', 'pin_memory'):
        settings['train_dataloader'].pop(key, None)
    return settings


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a run in its folder.

    Raises:
        ValueError: If the folder holds a run with other ones.
    """
    from .arms import differences

    path = folder / 'settings.json'
    if path.is_file():
        changed = differences(json.loads(path.read_text()), settings)
        if changed:
            listed = '; '.join(
                f'{key}: {old!r}, now {new!r}' for key, (old, new) in list(changed.items())[:5]
            )
            raise ValueError(
                f'{folder} holds a run with other settings ({listed}). Remove that folder to run '
                'it anew, or give another --out.'
            )
    else:
        write_json(path, settings)


def train(job: Job, cfg: Any, preset: Preset, out: Path, data_root: Path) -> None:
    """Train to the end; leaves ``final.pth``, ``cost.json`` and no other checkpoint."""
    import torch
    from mmengine.runner import Runner

    from mmdet_softpl.checkpoint_files import last_checkpoint

    from .hooks import Cost, Curves, Progress, StartHere
    from .origin import origin

    folder = job.folder(out)
    last = last_checkpoint(folder) or (job.needs and job.needs.folder(out) / 'final.pth')
    if last:
        cfg.resume, cfg.load_from = True, str(last)
        # Only the number of iterations is wanted: memory-mapped.
        meta = torch.load(last, map_location='cpu', weights_only=False, mmap=True)['meta']
        cfg.train_dataloader.batch_sampler.start = meta['iter']
    if not (folder / 'origin.json').is_file():
        write_json(folder / 'origin.json', origin(), indent=1)
    progress = Progress(folder / 'progress.json', cfg.train_cfg.max_iters)
    cost = Cost(progress, preset.supervised_iters)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(StartHere())
    runner.register_hook(cost)
    if job.stage == 'arm':
        runner.register_hook(Curves(cfg, preset, data_root, folder, cost))
    runner.train()
    progress.close()
    write_json(folder / 'cost.json', cost.cost)
    if job.stage != 'arm':
        os.replace(last_checkpoint(folder), folder / 'final.pth')
    else:
        weights = {'state_dict': runner.model.state_dict(), 'meta': {'iter': runner.iter}}
        # Of other weights.
        (folder / REBALANCED_FILE).unlink(missing_ok=True)
        torch.save(weights, folder / 'final.tmp')
        os.replace(folder / 'final.tmp', folder / 'final.pth')
    for path in folder.glob('iter_*.pth'):
        path.unlink()


def measure(
    cfg: Any, preset: Preset, folder: Path, data_root: Path, splits: tuple[str, ...]
) -> None:
    """Measure the trained arm; what is there already is kept."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    from . import parts  # noqa: F401
    from .hooks import Progress
    from .measure import Report, evaluate, groups_of, judged, label_sample, sample_of

    init_default_scope('mmdet')
    progress = Progress(folder / 'progress.json', preset.max_iters)
    if progress.path.is_file():
        progress.state = json.loads(progress.path.read_text())
    model = MODELS.build(cfg.model)
    # Of our own making, and of numbers alone.
    state = torch.load(folder / 'final.pth', map_location='cpu', weights_only=True)
    model.load_state_dict(state['state_dict'])
    model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()

    def clock() -> Report:
        start = time.perf_counter()
        return lambda done, total: progress.images(
            done, total, (time.perf_counter() - start) / max(done, 1)
        )

    for split in splits:
        if (folder / f'{split}.json').is_file():
            continue
        ann_file = data_root / 'annotations' / f'{split}.json'
        metrics, counts = evaluate(model, cfg, ann_file, data_root / split, clock())
        write_json(
            folder / f'{split}.json', dict(metrics=metrics, reliability=counts.tolist()), indent=1
        )
    if not (folder / 'pseudo.json').is_file():
        result: dict[str, Any] = {}
        if hasattr(model, 'class_state'):
            seen = label_sample(model, cfg, report=clock())
            sample = [seen[i] for i in sample_of(len(seen), preset.pseudo_images)]
            result = dict(
                groups=groups_of(data_root).tolist(),
                sample=judged(sample, cfg, data_root),
                all=judged(seen, cfg, data_root),
            )
        write_json(folder / 'pseudo.json', result, indent=1)
    progress.close()


def main() -> int:
    """Entry point of a run."""
    parser = argparse.ArgumentParser(description='One run of the benchmark; see run.py.')
    parser.add_argument('--preset', choices=PRESETS, required=True)
    parser.add_argument('--arm', choices=ARMS, required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('--stage', choices=STAGES, default='arm')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=list(SPLITS))
    args = parser.parse_args()
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    job = Job(args.arm, args.seed, args.stage)
    run_job(job, PRESETS[args.preset], args.out, args.data, tuple(args.splits))
    return 0


if __name__ == '__main__':
    sys.exit(main())
