"""``python -m mmdet_softpl similarity``: which classes ``SmoothedCEHead`` considers similar.

Shape legend: C foreground classes, D embedding size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

NAME = 'similarity'
HELP = 'show which classes SmoothedCEHead considers similar, and write it to a file'

EXAMPLE = """example:
  softpl similarity my_config.py work_dirs/parts/iter_20000.pth --out similarity/
then in a config:
  bbox_head=dict(type='mmdet_softpl.SmoothedCEHead', smoothing_mode='file',
                 similarity_file='similarity/similarity.npz')
"""
MAX_ROWS = 100
SHOWN_ROWS = 30
# What rounds to 0 % is no neighbour worth a word.
MIN_WEIGHT = 0.005
# Largest difference between the rows of a head and of one that reads its file.
SAME_ROWS = 1e-6
FILES = {'json': 'similarity.json', 'arrays': 'similarity.npz', 'picture': 'similarity.png'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument('config', metavar='CONFIG', help='config of the training')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the training')
    parser.add_argument(
        '--from',
        dest='network',
        choices=('teacher', 'student'),
        default='teacher',
        help='whose head, of a semi-supervised checkpoint (default: teacher)',
    )
    parser.add_argument(
        '--embeddings',
        metavar='FILE',
        help='compare with a .npy, .npz or .pt file: (C, D) embeddings or (C, C) similarities, '
        'rows in the order of the labels',
    )
    parser.add_argument('--neighbours', type=int, default=5, help='shown for a class (default: 5)')
    parser.add_argument(
        '--out',
        metavar='DIR',
        help='write similarity.json, similarity.png and similarity.npz, which '
        "smoothing_mode='file' reads",
    )
    parser.add_argument('--overwrite', action='store_true', help='replace these files')
    parser.add_argument('--json', action='store_true', help='print a JSON object')


def run(args: argparse.Namespace) -> int:
    """Show the similarity of a trained head, compare it, write it.

    Returns:
        0; 1 where the file that was written does not give the same rows again. Bad input raises
        ``ValueError`` or ``OSError``.
    """
    from mmdet_softpl.checks import check_range
    from mmdet_softpl.engine.trained_head import load_trained_head

    check_range('similarity', '--neighbours', args.neighbours, 1, None)
    _check_outputs(args)
    trained = load_trained_head(args.config, args.checkpoint, args.network)
    head, names = trained.head, trained.names
    result = _describe(head, names, args.neighbours)
    if args.embeddings is not None:
        result['comparison'] = _compare(head, names, args.embeddings)
    same = True
    if args.out is not None:
        same = _write(trained.cfg, head, names, result, Path(args.out), trained.scope)
    for warning in result['warnings']:
        print(f'warning: {warning}', file=sys.stderr)
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
    if not same:
        print(
            f'error: a head built on {result["files"]["arrays"]} has other rows (largest '
            f'difference {result["file_difference"]:.1g}); do not use that file.',
            file=sys.stderr,
        )
    return 0 if same else 1


def _check_outputs(args: argparse.Namespace) -> None:
    if args.out is None:
        return
    if os.path.exists(args.out) and not os.path.isdir(args.out):
        raise NotADirectoryError(f'--out {args.out} is a file; give a folder.')
    for name in FILES.values():
        path = Path(args.out) / name
        if path.exists() and not args.overwrite:
            raise FileExistsError(f'{path} exists; give another --out, or --overwrite.')


def _counts(head: Any) -> Any:
    """(C,) positives behind each class; ones where the head does not count them."""
    import torch

    if head.keeps_prototypes:
        return head.prototype_counts
    return torch.ones(head.num_classes)


def _describe(head: Any, names: list[str], neighbours: int) -> dict[str, Any]:
    """What the head believes, as plain numbers."""
    import numpy as np

    from mmdet_softpl.evaluation.similarity_comparison import dense_similarity, inflow_ratio
    from mmdet_softpl.functional import effective_neighbours

    similarity, counts = head.similarity, _counts(head)
    dense = dense_similarity(similarity)
    effective = effective_neighbours(similarity).tolist()
    uniform = (similarity.weights.sum(1) == 0).tolist()
    inflow = inflow_ratio(similarity, counts, head.smoothing)
    classes = []
    for i, name in enumerate(names):
        order = [int(j) for j in np.argsort(-dense[i], kind='stable') if j != i]
        near = [] if uniform[i] else [j for j in order[:neighbours] if dense[i, j] >= MIN_WEIGHT]
        classes.append(
            dict(
                name=name,
                positives=float(counts[i]) if head.keeps_prototypes else None,
                neighbours=[dict(name=names[j], weight=float(dense[i, j])) for j in near],
                itself=float(dense[i, i]),
                effective_neighbours=float(effective[i]),
                inflow=float(inflow[i]) if head.keeps_prototypes else None,
                uniform=uniform[i],
            )
        )
    learned = [c['effective_neighbours'] for c in classes if not c['uniform']]
    warnings = []
    if not learned:
        warnings.append(
            'no class has a similarity yet: the head refreshes it every '
            f'{head.refresh_interval} iterations, and this checkpoint is from before the first.'
        )
    elif sum(uniform):
        warnings.append(
            f'{sum(uniform)} of {len(names)} classes have no positive yet; smoothing spreads their '
            'mass over all others.'
        )
    if learned and len(names) > 20 and np.median(learned) > 0.5 * min(head.topk, len(names) - 1):
        warnings.append(
            f'half of the classes spread over {np.median(learned):.1f} or more of {head.topk} '
            f'neighbours: temperature={head.temperature:g} makes the smoothing nearly uniform '
            'among them.'
        )
    return dict(
        mode=head.smoothing_mode,
        smoothing=head.smoothing,
        temperature=head.temperature,
        topk=head.topk,
        effective_neighbours=float(np.median(learned)) if learned else None,
        largest_inflow=float(inflow.max()) if head.keeps_prototypes else None,
        classes=classes,
        warnings=warnings,
    )


def _compare(head: Any, names: list[str], path: str) -> dict[str, Any]:
    """Agreement with what a file says."""
    import numpy as np

    from mmdet_softpl.evaluation.similarity_comparison import (
        compare_similarities,
        dense_similarity,
    )
    from mmdet_softpl.functional import similarity_from_prototypes
    from mmdet_softpl.models.similarity_file import read_similarity

    every = max(len(names) - 1, 1)
    # At T = 1 no weight of a cosine is lost to rounding, and only the order matters here.
    theirs = dense_similarity(
        read_similarity(path, len(names), every, temperature=1.0, argument='--embeddings')
    )
    if head.keeps_prototypes:
        own = similarity_from_prototypes(
            head.prototypes, head.prototype_counts, topk=every, temperature=1.0
        )
        known = (head.prototype_counts > 0).numpy()
    else:
        own = head.similarity
        known = (own.weights.sum(1) > 0).numpy()
    compared = compare_similarities(dense_similarity(own), theirs, known)
    finite = np.flatnonzero(np.isfinite(compared.by_class))
    order = finite[np.argsort(compared.by_class[finite], kind='stable')]
    result = dataclasses.asdict(compared)
    result['by_class'] = {names[i]: float(compared.by_class[i]) for i in finite}
    result['least_alike'] = [names[i] for i in order[:5]]
    result['file'] = path
    if not len(finite):
        # JSON has no nan.
        result['rank_correlation'] = None
    return result


def _write(
    head_cfg: dict[str, Any],
    head: Any,
    names: list[str],
    result: dict[str, Any],
    out: Path,
    scope: str | None,
) -> bool:
    """Write the three files; whether a head that reads the arrays has the same rows."""
    import numpy as np
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    from mmdet_softpl.atomic_json import replaced_together, write_json
    from mmdet_softpl.evaluation.similarity_comparison import dense_similarity
    from mmdet_softpl.reporting.figure import save_figure
    from mmdet_softpl.reporting.similarity import draw_similarity

    out.mkdir(parents=True, exist_ok=True)
    paths = {kind: out / name for kind, name in FILES.items()}
    dense = dense_similarity(head.similarity)
    with replaced_together(paths['arrays']) as (temporary,):
        np.savez(
            temporary,
            indices=head.similarity.indices.numpy(),
            weights=head.similarity.weights.numpy(),
            classes=np.array(names),
        )
    again = dict(head_cfg, smoothing_mode='file', similarity_file=str(paths['arrays']))
    with DefaultScope.overwrite_default_scope(scope or 'mmdet'):
        rebuilt = MODELS.build(ConfigDict(again))
    difference = float(np.abs(dense_similarity(rebuilt.similarity) - dense).max())
    result['file_difference'] = difference
    save_figure(draw_similarity(dense, names), paths['picture'])
    result['files'] = {kind: str(path) for kind, path in paths.items()}
    write_json(paths['json'], result, indent=1)
    return difference < SAME_ROWS


def _named(neighbours: list[dict[str, Any]]) -> str:
    return ', '.join(f'{n["name"]} {100 * n["weight"]:.0f}%' for n in neighbours)


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    classes = result['classes']
    shown = classes
    if len(classes) > MAX_ROWS:
        if result['largest_inflow'] is not None:
            shown = sorted(classes, key=lambda c: -c['inflow'])
        shown = shown[:SHOWN_ROWS]
    console = Console()
    console.width = max(console.width, 100)
    table = Table()
    for title in ('class', 'positives', 'nearest classes', 'effective', 'inflow'):
        table.add_column(title, justify='left' if 'class' in title else 'right')
    for c in shown:
        table.add_row(
            Text(c['name']),
            '-' if c['positives'] is None else f'{c["positives"]:.0f}',
            Text('all alike' if c['uniform'] else _named(c['neighbours'])),
            f'{c["effective_neighbours"]:.1f}',
            '-' if c['inflow'] is None else f'{c["inflow"]:.2f}',
        )
    console.print(table)
    if len(shown) < len(classes):
        which = 'the first' if result['largest_inflow'] is None else 'those with the largest inflow'
        print(f'{len(shown)} of {len(classes)} classes, {which}.')
    if result['effective_neighbours'] is not None:
        print(
            f'A class effectively spreads over {result["effective_neighbours"]:.1f} others '
            '(median).'
        )
    if result['largest_inflow'] is not None:
        print(
            f'Most smoothed mass that flows into a class: {result["largest_inflow"]:.2f} times its '
            'own positives.'
        )
    compared = result.get('comparison')
    if compared is not None:
        overlap = ', '.join(
            f'{100 * v:.0f} % of the nearest {k} (chance {100 * compared["chance"][k]:.0f} %)'
            for k, v in compared['overlap'].items()
        )
        correlation = compared['rank_correlation']
        if correlation is None:
            print(f'{compared["file"]}: too few classes have a prototype to compare them.')
        else:
            print(
                f'{compared["file"]}: rank correlation {correlation:.2f} over '
                f'{compared["classes"]} classes{"; shares " + overlap if overlap else ""}.'
            )
            if correlation < 0.1:
                print('That is next to none: are its rows in the order of the labels?')
            print(f'least alike: {", ".join(compared["least_alike"])}')
    if 'files' in result:
        if result['file_difference'] < SAME_ROWS:
            print(f'a head built on {result["files"]["arrays"]} has the same rows')
        print(*result['files'].values(), sep='\n')
