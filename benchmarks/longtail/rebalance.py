"""What ``softpl rebalance`` brings to trained arms: chosen on tune, reported on test.

`python -m benchmarks.longtail.rebalance --arms 0-normed 7-normed --seeds 2 --out work_dirs/my_runs`
needs finished runs of these arms; no training. It leaves ``rebalanced.json`` in the folder of
each, which `run.py --report-only` takes into the results.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.engine.class_biases import ShiftedBiases
from mmdet_softpl.engine.part_folder import claim_folder
from mmdet_softpl.engine.rebalancing import GAMMAS, choose_strength, detections_in_parts, halves_of
from mmdet_softpl.file_keys import file_key, images_key
from mmdet_softpl.functional import rebalancing_shifts
from mmdet_softpl.progress import Progress

from . import parts  # noqa: F401
from .arms import ARMS, arm_config, placed
from .job import REBALANCED_FILE, Job
from .measure import classes_of, evaluate, split_dataset
from .presets import PRESETS, Preset
from .rebalance_table import METRICS, rebalance_table
from .results import Table, collect


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table.

    Returns:
        0; 2 where a run is missing.
    """
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.longtail.rebalance', description=__doc__.splitlines()[0]
    )
    parser.add_argument('--preset', choices=PRESETS, default='cpu')
    parser.add_argument('--arms', nargs='+', choices=ARMS, required=True)
    parser.add_argument('--seeds', nargs='+', type=int, default=[2])
    parser.add_argument('--out', type=Path, help='folder of the runs')
    parser.add_argument('--data', type=Path, help='folder of the pictures')
    args = parser.parse_args(argv)
    preset = PRESETS[args.preset]
    out = (args.out or Path('work_dirs') / 'longtail' / preset.name).resolve()
    data_root = (args.data or out / 'data').resolve()
    jobs = [Job(arm, seed) for arm in args.arms for seed in args.seeds]
    missing = [job.name for job in jobs if not job.is_done(out, ('tune', 'test'))]
    if missing:
        print(f'error: not finished in {out}: {", ".join(missing)}.', file=sys.stderr)
        return 2
    init_default_scope('mmdet')
    # The host prints while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        for job in jobs:
            found = rebalanced(job, preset, out, data_root)
            write_json(job.folder(out) / REBALANCED_FILE, found, indent=1)
    print('\n'.join(rebalance_table(Table(collect(preset.name, out), preset.name))))
    return 0


def rebalanced(job: Job, preset: Preset, out: Path, data_root: Path) -> dict[str, Any]:
    """The strength chosen on ``tune``, and mask AP of both splits with it.

    Returns:
        What ``choose_strength`` does, and ``metrics``: those of ``METRICS`` by split.
    """
    folder = job.folder(out)
    cfg = placed(arm_config(job.arm, preset, job.seed), data_root)
    model: Any = MODELS.build(cfg.model)
    state = torch.load(folder / 'final.pth', map_location='cpu', weights_only=True)
    model.load_state_dict(state['state_dict'])
    model.to('cuda' if torch.cuda.is_available() else 'cpu').eval()
    annotations = data_root / 'annotations'
    labelled = str(annotations / 'train.json')
    counts = torch.as_tensor(class_statistics(check_annotations(labelled)).image_counts)
    found_in = folder / 'rebalance.parts'
    dataset = split_dataset(cfg, annotations / 'tune.json', data_root / 'tune')
    shifts = torch.stack([rebalancing_shifts(counts, gamma) for gamma in GAMMAS])
    key = dict(
        checkpoint=file_key(folder / 'final.pth'),
        ann_file=file_key(annotations / 'tune.json'),
        images=images_key(dataset),
        config=cfg.pretty_text,
        shifts=shifts.tolist(),
    )
    claim_folder(found_in, key)
    (found_in / 'tune').mkdir(exist_ok=True)
    data = load_annotation_file(str(annotations / 'tune.json'))
    img_ids = [image['id'] for image in data['images']]
    records = detections_in_parts(
        model.teacher,
        dataset,
        shifts,
        found_in / 'tune',
        progress=Progress(f'{job.name}: tune'),
    )
    choice = choose_strength(
        records,
        data,
        halves_of(data, img_ids, 0, 'tune.json'),
        classes_of(cfg),
        labelled,
        found_in,
        progress=Progress('drawing images'),
    )
    ShiftedBiases(model.teacher).set(rebalancing_shifts(counts, choice['gamma']))
    values: dict[str, dict[str, float]] = {}
    for split in ('tune', 'test'):
        metrics, _ = evaluate(
            model,
            cfg,
            annotations / f'{split}.json',
            data_root / split,
            Progress(f'{job.name}: {split}, rebalanced'),
        )
        values[split] = {key: metrics[key] for key in METRICS}
    return dict(choice, metrics=values)


if __name__ == '__main__':
    sys.exit(main())
