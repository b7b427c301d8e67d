"""``python -m mmdet_softpl shapes``: generate the long-tail shapes data set."""

from __future__ import annotations

import argparse
import json
import os

NAME = 'shapes'
HELP = 'generate the long-tail shapes data set'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``; the defaults are those of ``ShapesConfig``."""
    parser.epilog = 'example: python -m mmdet_softpl shapes data/shapes --num-train 40'
    parser.add_argument('root', help='folder of the data set, such as data/longtail_shapes')
    parser.add_argument('--num-classes', type=int, help='2 to 96')
    parser.add_argument('--image-size', type=int, help='side of the square images in pixels')
    parser.add_argument('--num-train', type=int, help='labelled images')
    parser.add_argument('--num-unlabeled', type=int, help='unlabelled images')
    parser.add_argument('--num-val', type=int, help='validation images')
    parser.add_argument('--seed', type=int)
    parser.add_argument(
        '--extra',
        action='append',
        default=[],
        metavar='NAME=COUNT',
        help='a further balanced split, such as test=500; may be repeated',
    )
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')
    parser.add_argument('--json', action='store_true', help='print the summary as json')


def run(args: argparse.Namespace) -> int:
    """Generate the data set and print its class counts.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``.
    """
    from mmdet_softpl.datasets.class_statistics import class_statistics
    from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
    from mmdet_softpl.datasets.shape_plan import ShapesConfig

    if os.path.isfile(args.root):
        raise NotADirectoryError(f'ROOT {args.root}: a file, but a folder is needed')
    names = ('num_classes', 'image_size', 'num_train', 'num_unlabeled', 'num_val', 'seed')
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    config = ShapesConfig(**given, extra_splits=tuple(_parse_split(text) for text in args.extra))
    paths = generate_longtail_shapes(
        args.root, config, progress=not args.json, workers=args.workers
    )
    statistics = class_statistics(paths['train'])
    groups = {letter: statistics.groups.count(letter) for letter in 'rcf'}
    if args.json:
        summary = {
            'paths': {name: str(path) for name, path in paths.items()},
            'images': config.splits,
            'groups': groups,
            'image_counts': dict(
                zip(statistics.classes, statistics.image_counts.tolist(), strict=True)
            ),
        }
        print(json.dumps(summary))
        return 0
    print(f'{paths["root"]}: ' + ', '.join(f'{n} {name}' for name, n in config.splits.items()))
    print(
        f'{config.num_classes} classes: {groups["r"]} rare, {groups["c"]} common, {groups["f"]} '
        f'frequent; {statistics.image_counts.min()} to {statistics.image_counts.max()} labelled '
        'images a class'
    )
    return 0


def _parse_split(text: str) -> tuple[str, int]:
    name, _, count = text.partition('=')
    if not name or not count.isdigit():
        raise ValueError(f'--extra {text!r}: give NAME=COUNT, such as test=500')
    return name, int(count)
