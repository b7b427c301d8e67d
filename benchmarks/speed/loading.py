"""The loader of a shipped config with four workers, against the iteration that it feeds."""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner

from benchmarks.speed.iteration import describe, own_step
from benchmarks.speed.planted import Case
from benchmarks.speed.records import Record, of_number
from benchmarks.speed.timing import interleave
from mmdet_softpl.shipped_configs import config_path

CONFIG = 'calibrated-soft-teacher_mask-rcnn_r50_fpn_180k_semi-0.1-coco'
WORKERS, IMAGES, BATCHES = 4, 64, 32
AHEAD_SECONDS = 3
SIZE, OBJECTS = (480, 640), 7


def write_images(root: Path) -> None:
    """``labelled`` and ``unlabelled`` photos of COCO's size, as noisy as photos; ``train.json``."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for kind in ('labelled', 'unlabelled'):
        (root / kind).mkdir()
        for i in range(IMAGES):
            noise = rng.normal(128, 60, (*SIZE, 3)).astype(np.float32)
            picture = 4 * (cv2.GaussianBlur(noise, (0, 0), 6) - 128) + 128 + 0.1 * (noise - 128)
            path = root / kind / f'{i}.jpg'
            cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8))
    for i in range(IMAGES):
        images.append(dict(id=i, file_name=f'{i}.jpg', height=SIZE[0], width=SIZE[1]))
        for _ in range(OBJECTS):
            x, y = rng.uniform(0, 400), rng.uniform(0, 280)
            angles = np.arange(20) * np.pi / 10
            outline = np.stack([x + 80 + 80 * np.cos(angles), y + 80 + 80 * np.sin(angles)], 1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=1,
                    bbox=[x, y, 160, 160],
                    area=20000.0,
                    iscrowd=0,
                    segmentation=[outline.ravel().tolist()],
                )
            )
    categories = [dict(id=1, name='part')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'train.json').write_text(json.dumps(content))


def loader_of(root: Path, batch_size: int, workers: int, pasted: bool = True) -> Any:
    """The training loader of the config on the images of ``root``, without pasting if wanted."""
    cfg = Config.fromfile(config_path(CONFIG))
    loader = cfg.train_dataloader
    labelled, unlabelled = loader.dataset.datasets
    common = dict(data_root=f'{root}/', metainfo=dict(classes=('part',)))
    labelled.update(common, ann_file='train.json', data_prefix=dict(img='labelled/'))
    unlabelled.update(common, ann_file='', data_prefix=dict(img='unlabelled/'))
    if not pasted:
        loader.dataset.max_num_pasted = 0
    loader.sampler.batch_size = batch_size
    # One pass ends with the processes, whose time counts when they have ended.
    loader.update(batch_size=batch_size, num_workers=workers, persistent_workers=False)
    return Runner.build_dataloader(loader, seed=0)


def seconds_per_batch(root: Path, batch_size: int, pasted: bool = True) -> float:
    """CPU seconds of all workers for a batch."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    loader = loader_of(root, batch_size, WORKERS, pasted)
    batches = iter(loader)
    for _ in range(BATCHES):
        next(batches)
    # The workers are ahead by so many batches; then they are ended, for their time to count.
    time.sleep(AHEAD_SECONDS)
    del batches
    return (used() - before) / (BATCHES + WORKERS * loader.prefetch_factor)


def rows(case: Case, rounds: int) -> list[Record]:
    """Seconds of four workers for a batch over those of the iteration."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root)
        # Alternating: other work on the machine then falls on both.
        pairs = [
            [seconds_per_batch(root, 2 * case.batch, pasted) for pasted in (True, False)]
            for _ in range(rounds)
        ]
    batch, without = map(statistics.median, zip(*pairs, strict=True))
    step = own_step(case)
    # By the clock: what the loader must keep up with.
    times = interleave({'step': step}, rounds, case.device)
    iteration = statistics.median(times.wall['step']) / 1e3
    loading = batch / WORKERS
    return [
        of_number(
            loading / iteration,
            what=f'loading a batch, {WORKERS} workers',
            against='the iteration that it feeds',
            case=describe(case),
            device=case.device,
            target=1,
            note=f'a batch of {case.batch} labelled and {case.batch} unlabelled images in two '
            f'views (photos of {SIZE[1]} x {SIZE[0]}, resized as the config says) takes '
            f'{1e3 * batch:.0f} ms of a core ({1e3 * without:.0f} without pasted objects), so '
            f'{WORKERS} workers with a core each feed any device whose iteration takes more than '
            f'{1e3 * loading:.0f} ms',
        )
    ]
