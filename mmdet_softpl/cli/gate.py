"""``python -m mmdet_softpl gate``: which labels of generated images a teacher agrees with."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

NAME = 'gate'
HELP = 'judge the labels of generated images by a trained teacher; wrong ones are dropped'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.set_defaults(resumes=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        'example:\n'
        '  python -m mmdet_softpl gate parts.py work_dirs/parts/iter_20000.pth generated.json \\\n'
        '      --images generated/ --held-out val.json --held-out-images images/ \\\n'
        '      --out generated-gated.json'
    )
    parser.add_argument('config', help='config of the training, with CalibratedSoftTeacher')
    parser.add_argument('checkpoint', help='its checkpoint (.pth)')
    parser.add_argument('ann_file', help='COCO json of the generated images')
    parser.add_argument('--images', required=True, help='folder of the generated images')
    parser.add_argument(
        '--held-out',
        required=True,
        help='json of labelled images that the teacher was not trained on',
    )
    parser.add_argument('--held-out-images', required=True, help='folder of these images')
    parser.add_argument('--out', required=True, help='json to write')
    parser.add_argument(
        '--precision',
        type=float,
        help='share of right labels among the kept ones (default: keep as large a share of the '
        'right labels as is dropped of the wrong ones); either by the held-out images, with their '
        'classes weighted to be as often as the generated ones',
    )
    parser.add_argument(
        '--wrong-share',
        type=float,
        default=0.25,
        help='share of the generated labels that is assumed to be wrong (default: 0.25)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the spoilt held-out labels')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', help='such as cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing OUT')
    parser.add_argument('--json', action='store_true', help='print the summary as json')


def run(args: argparse.Namespace) -> int:
    """Judge the labels, write the json, say what was kept.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``.
    """
    out = Path(args.out)
    if out.exists() and not args.overwrite:
        raise FileExistsError(f'{out} exists; give --overwrite or another --out')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out.parent}: the folder of --out does not exist; make it')
    for name, path in (('ANN_FILE', args.ann_file), ('--held-out', args.held_out)):
        if os.path.realpath(path) == os.path.realpath(out):
            raise ValueError(f'--out {out} is {name}, which it would replace; give another name.')
    for name, folder, file in (
        ('--images', args.images, 'ANN_FILE'),
        ('--held-out-images', args.held_out_images, '--held-out'),
    ):
        if os.path.isfile(folder):
            raise NotADirectoryError(
                f'{name} {folder}: a file, but a folder of images is needed; was it swapped with '
                f'{file}?'
            )
        if not os.path.isdir(folder):
            raise FileNotFoundError(f'{name} {folder}: there is no such folder')
    for name, share in (('--precision', args.precision), ('--wrong-share', args.wrong_share)):
        if share is not None and share > 1:
            raise ValueError(f'{name} lies between 0 and 1 (0.9, not 90); got {share:g}')
    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')

    from mmdet_softpl.atomic_json import write_json
    from mmdet_softpl.engine.device import chosen_device
    from mmdet_softpl.engine.held_out import training_images_held_out
    from mmdet_softpl.engine.label_gating import gate_labels
    from mmdet_softpl.engine.load_teacher import load_teacher, read_config
    from mmdet_softpl.engine.part_folder import claim_folder
    from mmdet_softpl.file_keys import file_key
    from mmdet_softpl.progress import Progress

    if os.path.abspath(args.ann_file) == os.path.abspath(args.held_out):
        raise ValueError(
            f'--held-out {args.held_out}: this is the json whose labels are to be judged; give '
            'labelled images that are surely right and that the teacher was not trained on.'
        )
    device = chosen_device(args.device)
    cfg = read_config(args.config)
    detector, doubts = load_teacher(cfg, args.checkpoint)
    for doubt in doubts:
        print(f'warning: {doubt}', file=sys.stderr)
    detector.to(device)
    folder = out.with_name(out.name + '.evidence')

    def prepare(key: dict[str, Any]) -> None:
        for warning in training_images_held_out(cfg, args.held_out):
            print(f'warning: {warning}', file=sys.stderr)
        claim_folder(folder, dict(key, checkpoint=file_key(args.checkpoint)))

    bars = {name: Progress(f'looking at {name} images') for name in ('held-out', 'generated')}
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        result = gate_labels(
            detector,
            cfg,
            args.ann_file,
            args.images,
            args.held_out,
            args.held_out_images,
            folder,
            prepare=prepare,
            precision=args.precision,
            wrong_share=args.wrong_share,
            seed=args.seed,
            batch_size=args.batch_size,
            progress=lambda name, done, total: bars[name](done, total),
        )
    write_json(out, result)
    summary = _summary(result, str(out))
    print(json.dumps(summary)) if args.json else _print(summary, folder)
    return 0


def _summary(result: dict[str, Any], out: str) -> dict[str, Any]:
    names = {category['id']: category['name'] for category in result['categories']}
    classes = {name: dict(labels=0, kept=0) for name in names.values()}
    unnamed = 0
    for annotation in result['annotations']:
        if annotation.get('iscrowd'):
            unnamed += annotation.get('source') == 'teacher'
            continue
        record = classes[names[annotation['category_id']]]
        record['labels'] += 1
        record['kept'] += annotation['keep']
    return dict(
        out=out,
        labels=sum(record['labels'] for record in classes.values()),
        kept=sum(record['kept'] for record in classes.values()),
        unnamed_objects=unnamed,
        gate=result['gate'],
        classes=classes,
    )


def _print(summary: dict[str, Any], folder: Path) -> None:
    gate = summary['gate']
    print(f'on held-out labels, threshold {gate["threshold"]:.3f}:')
    for kind, record in gate['held_out'].items():
        verb, share = (
            ('kept', record['kept']) if kind == 'right' else ('dropped', 1 - record['kept'])
        )
        print(f'  {kind.replace("_", " "):12s} {share:4.0%} of {record["labels"]} {verb}')
    expected = gate['expected']
    print(
        f'  with the classes as often as among the generated labels: {expected["right_kept"]:.0%} '
        f'of the right kept, {expected["wrong_dropped"]:.0%} of the wrong dropped'
    )
    print(f'generated labels: {summary["kept"]} of {summary["labels"]} kept')
    width = max(map(len, summary['classes']))
    for name, record in summary['classes'].items():
        print(f'  {name:{width}s} {record["kept"]} of {record["labels"]}')
    print(f'{summary["unnamed_objects"]} objects without a kept label are regions to ignore')
    print(f'{summary["out"]} (evidence, for another --precision: {folder})')
