"""Which wrong labels of generated images the gate drops, and how many right ones it keeps.

Needs what `make demo` leaves: `python benchmarks/generated_images.py work_dirs/demo`. The teacher
is the demo's. A random half of the demo's validation images is held out to fit the gate. Labels are
spoilt on purpose in the other half (`balanced`: every class alike often) and in unlabelled images,
whose hidden labels are known (`tail`). Each seed draws another half and spoils other labels, of the
held-out images as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

import mmdet_softpl  # noqa: F401  (stands in for mmcv's ops)
from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.checkpoint_files import last_checkpoint
from mmdet_softpl.cli.demo import CONFIG, replace_prefix
from mmdet_softpl.datasets.wrong_labels import WRONG_KINDS, spoil_labels
from mmdet_softpl.engine.label_gating import WRONG_PER_RIGHT, gate_labels
from mmdet_softpl.engine.load_teacher import load_teacher, read_config
from mmdet_softpl.engine.part_folder import claim_folder

TARGET = 0.8
SPOILT_SHARE = 0.3
GROUPS = {'r': 'rare', 'c': 'common', 'f': 'frequent'}


def main() -> int:
    """Run all seeds, print a table, write a json beside the work directory's other results.

    Returns:
        0 if both targets are reached on the balanced images, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', help='of a finished `make demo`')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--tail-images', type=int, default=200)
    parser.add_argument('--out', help='folder of the results (default: WORK_DIR/generated_images)')
    args = parser.parse_args()
    work_dir = Path(args.work_dir).resolve()
    out = Path(args.out or work_dir / 'generated_images').resolve()
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is None:
        parser.error(f'{work_dir} has no checkpoint; give the folder of a finished `make demo`.')
    out.mkdir(parents=True, exist_ok=True)
    cfg = read_config(str(work_dir / f'{CONFIG}.py'))
    # The dumped config names the data as the demo was started.
    replace_prefix(cfg._cfg_dict, cfg.val_dataloader.dataset.data_root, f'{work_dir}/data/')
    detector, _ = load_teacher(cfg, str(checkpoint))

    data = work_dir / 'data'
    val = json.loads((data / 'annotations' / 'val.json').read_text())
    hidden = json.loads((data / 'annotations' / 'hidden_unlabeled.json').read_text())
    tail = _part(hidden, hidden['images'][: args.tail_images])
    results: dict[str, list[dict[str, float]]] = {'balanced': [], 'tail': []}
    for seed in range(args.seeds):
        held, judged = _halves(val['images'], seed)
        held_out = out / f'held_out-{seed}.json'
        write_json(held_out, _part(val, held))
        sources = {
            'balanced': (_part(val, judged), data / 'val'),
            'tail': (tail, data / 'unlabeled'),
        }
        for name, (content, images) in sources.items():
            # Not the held-out images' seed.
            spoilt = spoil_labels(content, SPOILT_SHARE, (seed, WRONG_PER_RIGHT))
            file = out / f'{name}-{seed}.json'
            write_json(file, spoilt)
            folder = out / f'{name}-{seed}.evidence'
            claim_folder(
                folder,
                dict(
                    checkpoint=str(checkpoint),
                    images=len(content['images']),
                    wrong_per_right=WRONG_PER_RIGHT,
                ),
            )
            gated = gate_labels(
                detector,
                cfg,
                str(file),
                str(images),
                str(held_out),
                str(data / 'val'),
                folder,
                seed=seed,
            )
            results[name].append(_shares(gated))
            print(f'seed {seed}, {name}: {results[name][-1]}', file=sys.stderr, flush=True)
    summary = {
        name: {key: _spread([record[key] for record in records]) for key in records[0]}
        for name, records in results.items()
    }
    write_json(out / 'results.json', dict(seeds=args.seeds, summary=summary, runs=results))
    print(_table(summary))
    balanced = summary['balanced']
    return 0 if min(balanced['right kept'][0], balanced['wrong dropped'][0]) >= TARGET else 1


def _halves(images: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    order = np.random.default_rng(seed).permutation(len(images))
    half = len(images) // 2
    return [images[i] for i in order[:half]], [images[i] for i in order[half:]]


def _part(data: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    ids = {image['id'] for image in images}
    annotations = [a for a in data['annotations'] if a['image_id'] in ids]
    return {**data, 'images': images, 'annotations': annotations}


def _shares(gated: dict[str, Any]) -> dict[str, float]:
    """Shares of right labels kept and of wrong ones dropped; of missing objects found."""
    judged = [a for a in gated['annotations'] if 'made' in a]
    group = {c['id']: GROUPS[c['frequency']] for c in gated['categories']}
    right = [a for a in judged if a['made'] == 'right']
    wrong = [a for a in judged if a['made'] != 'right']
    shares = {'right kept': _mean(a['keep'] for a in right)}
    for name in GROUPS.values():
        shares[f'right kept, {name}'] = _mean(
            a['keep'] for a in right if group[a['category_id']] == name
        )
    shares['wrong dropped'] = _mean(not a['keep'] for a in wrong)
    for kind in WRONG_KINDS[:-1]:
        shares[f'{kind} dropped'] = _mean(not a['keep'] for a in wrong if a['made'] == kind)
    shares['missing found'] = _mean(
        any(
            mask_utils.iou([m['bbox']], [a['bbox']], [0])[0, 0] >= 0.5
            for a in gated['annotations']
            if _region(a, m)
        )
        for m in gated['missing']
    )
    return shares


def _region(annotation: dict[str, Any], missing: dict[str, Any]) -> bool:
    return annotation.get('source') == 'teacher' and annotation['image_id'] == missing['image_id']


def _mean(values: Any) -> float:
    values = list(values)
    return float(np.mean(values)) if values else float('nan')


def _spread(values: list[float]) -> tuple[float, float]:
    return float(np.nanmean(values)), float(np.nanstd(values))


def _table(summary: dict[str, dict[str, tuple[float, float]]]) -> str:
    lines = ['| | ' + ' | '.join(summary) + ' |', '|---' * (len(summary) + 1) + '|']
    for key in next(iter(summary.values())):
        cells = ' | '.join(f'{part[key][0]:.2f} ± {part[key][1]:.2f}' for part in summary.values())
        lines.append(f'| {key.replace("_", " ")} | {cells} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
