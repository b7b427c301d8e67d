"""``python -m mmdet_softpl split``: labelled and unlabelled part of an annotation file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmdet_softpl.datasets.splits import SplitSummary

NAME = 'split'
HELP = 'split a COCO or LVIS json into a labelled and an unlabelled (or held-out) part'

MAX_CLASS_ROWS = 100
GROUP_NAMES = {'r': 'rare', 'c': 'common', 'f': 'frequent'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.epilog = (
        'example: python -m mmdet_softpl split data/parts/all.json --percent 10 --out data/parts'
    )
    parser.add_argument('ann_file', help='COCO or LVIS json with annotations')
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument('--percent', type=float, help='labelled share of the images, in (0, 100]')
    size.add_argument('--count', type=int, help='number of labelled images')
    parser.add_argument('--seed', type=int, default=1, help='names and seeds the split')
    parser.add_argument('--out', help='folder of the two files (default: that of ANN_FILE)')
    parser.add_argument(
        '--min-images-per-class',
        type=int,
        default=1,
        help='labelled images every class keeps at least, or all it has (default: 1)',
    )
    parser.add_argument(
        '--held-out',
        action='store_true',
        help='the rest keeps its labels, for HeldOutCalibrationHook or a pilot',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an existing split')
    parser.add_argument('--json', action='store_true', help='print the summary as json')


def run(args: argparse.Namespace) -> int:
    """Write the split and print what every group and class keeps.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``.
    """
    from mmdet_softpl.datasets.splits import write_split

    summary = write_split(
        args.ann_file,
        args.out if args.out is not None else Path(args.ann_file).parent,
        percent=args.percent,
        count=args.count,
        seed=args.seed,
        min_images_per_class=args.min_images_per_class,
        held_out=args.held_out,
        overwrite=args.overwrite,
    )
    if args.json:
        print(json.dumps(dataclasses.asdict(summary), default=str))
    else:
        _print_tables(summary, 'held-out' if args.held_out else 'unlabelled')
        for warning in summary.warnings:
            print(f'warning: {args.ann_file}: {warning}', file=sys.stderr)
    return 0


def _print_tables(summary: SplitSummary, kind: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mmdet_softpl.datasets.class_statistics import LEGEND

    console = Console()
    groups = Table(title='What the labelled part keeps (groups of the whole file)')
    for title in ('group', 'classes', 'kept', 'images', 'instances'):
        groups.add_column(title, justify='left' if title == 'group' else 'right')
    for letter, name in GROUP_NAMES.items():
        members = [c for c in summary.classes if c.group_before == letter]
        kept = sum(c.images_after > 0 for c in members)
        instances = sum(c.instances_after for c in members)
        images = [c.images_after for c in members]
        spread = f'{min(images)} to {max(images)} a class' if images else '-'
        groups.add_row(name, str(len(members)), str(kept), spread, str(instances))
    console.print(groups)
    if len(summary.classes) <= MAX_CLASS_ROWS:
        table = Table()
        for title in ('class', 'group', 'images', 'of', 'instances', 'of '):
            table.add_column(title, justify='left' if title in ('class', 'group') else 'right')
        for c in sorted(summary.classes, key=lambda c: -c.images_before):
            letters = (
                c.group_before
                if c.group_before == c.group_after
                else (f'{c.group_before} -> {c.group_after}')
            )
            table.add_row(
                Text(c.name),
                letters,
                str(c.images_after),
                str(c.images_before),
                str(c.instances_after),
                str(c.instances_before),
            )
        console.print(table)
        print(LEGEND)
    print(
        f'{summary.num_labeled} labelled images ({summary.num_for_coverage} of them taken to keep '
        f'every class): {summary.labeled_file}'
    )
    if summary.rest_file is not None:
        print(f'{summary.num_rest} {kind} images: {summary.rest_file}')
    else:
        print(f'no image is left over, so no {kind} file was written')
