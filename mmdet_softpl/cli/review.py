"""``python -m mmdet_softpl review``: doubtful pseudo-labels go to people and come back."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from mmdet_softpl.messages import some_of

NAME = 'review'
HELP = 'give doubtful and rare pseudo-labels to people, and take their corrections back'

EXPORT_EXAMPLE = """example:
  softpl review export my_config.py work_dirs/parts/iter_20000.pth --out review1 --hours 4
"""
IMPORT_EXAMPLE = """example:
  softpl review import review1 instances_default.json --reviewed all --out data/labelled2.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.epilog = 'examples: `review export --help`, `review import --help`'
    actions = parser.add_subparsers(dest='action', required=True, metavar='export|import')
    raw = argparse.RawDescriptionHelpFormatter
    export = actions.add_parser(
        'export',
        help='choose images and write them for an annotation tool',
        description='Label the unlabelled set, choose images, write them for an annotation tool.',
        epilog=EXPORT_EXAMPLE,
        formatter_class=raw,
    )
    export.add_argument('config', metavar='CONFIG', help='config of the training')
    export.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the training')
    export.add_argument('--out', required=True, metavar='DIR', help='folder of the export')
    export.add_argument('--hours', type=float, required=True, help='time that people have, > 0')
    export.add_argument(
        '--seconds-per-instance', type=float, default=79.0, help='time for a label (default: 79)'
    )
    export.add_argument('--format', choices=('coco', 'label-studio'), default='coco')
    export.add_argument(
        '--masks',
        choices=('polygon', 'rle'),
        default='polygon',
        help='of COCO files (default: polygon)',
    )
    export.add_argument(
        '--min-confidence',
        type=float,
        default=0.2,
        help='show labels of at least this calibrated confidence, in [0, 1] (default: 0.2)',
    )
    export.add_argument(
        '--images', metavar='DIR', help="label this folder, not the config's unlabelled set"
    )
    export.add_argument(
        '--image-url',
        default='/data/local-files/?d=images/',
        help='of Label Studio tasks: what stands before an image name (default: %(default)s)',
    )
    export.add_argument('--batch-size', type=int, default=8, help='images in a forward pass')
    export.add_argument('--device', help='cuda, cpu, ... (default: a GPU if there is one)')
    export.add_argument('--overwrite', action='store_true', help='replace an earlier export')
    export.add_argument('--json', action='store_true', help='print the summary as json')
    export.set_defaults(resumes=True)

    back = actions.add_parser(
        'import',
        help='merge the corrected labels into the labelled json',
        description='Merge completely reviewed images into the labelled json.',
        epilog=IMPORT_EXAMPLE,
        formatter_class=raw,
    )
    back.add_argument('review', metavar='DIR', help='folder of the export')
    back.add_argument(
        'corrected', metavar='CORRECTED', help='COCO json, or "JSON" export of Label Studio'
    )
    back.add_argument('--out', required=True, metavar='FILE', help='merged labelled json')
    back.add_argument(
        '--labeled', metavar='FILE', help="labelled json to add to (default: the export's)"
    )
    back.add_argument(
        '--reviewed',
        metavar='all|FILE',
        help='images that are reviewed as a whole: all of CORRECTED, or those whose file names a '
        'text file lists, one a line. Needed for COCO; Label Studio says it itself',
    )
    back.add_argument('--reviewer', help='who reviewed, where CORRECTED does not say')
    back.add_argument(
        '--unlabeled-out', metavar='FILE', help='also write a json of the images left unlabelled'
    )
    back.add_argument('--overwrite', action='store_true', help='replace existing output files')
    back.add_argument('--json', action='store_true', help='print the summary as json')
    for parser in (export, back):
        # As every command takes it; SUPPRESS leaves one given before alone.
        parser.add_argument(
            '--debug', action='store_true', default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    """Export or import.

    Returns:
        0; 1 where nothing was chosen or no image is complete. Bad input raises ``ValueError`` or
        ``OSError``.
    """
    return _export(args) if args.action == 'export' else _import(args)


def _export(args: argparse.Namespace) -> int:
    from mmdet_softpl.checks import check_range

    owner = 'review export'
    check_range(owner, '--hours', args.hours, 0, None, include_lower=False)
    seconds = args.seconds_per_instance
    check_range(owner, '--seconds-per-instance', seconds, 0, None, include_lower=False)
    check_range(owner, '--min-confidence', args.min_confidence, 0, 1)
    check_range(owner, '--batch-size', args.batch_size, 1, None)
    from mmdet_softpl.engine.review_export import ExportOptions, export_review
    from mmdet_softpl.progress import Progress

    fields = [f.name for f in dataclasses.fields(ExportOptions)]
    options = ExportOptions(**{name: getattr(args, name) for name in fields})
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        summary = export_review(
            args.config, args.checkpoint, args.out, options, Progress('labelling images')
        )
    for warning in summary['warnings']:
        print(f'warning: {warning}', file=sys.stderr)
    if args.json:
        print(json.dumps(summary))
    else:
        print(
            f'{summary["images"]} of {summary["images_seen"]} images chosen, with '
            f'{summary["labels"]} labels ({summary["rare"]} of rare classes): '
            f'{summary["hours"]:.1f} of {args.hours:g} hours'
        )
        most = list(summary['classes'].items())
        shown = ', '.join(f'{name} {count}' for name, count in most[:20])
        print(f'classes: {shown}{" ..." if len(most) > 20 else ""}')
        print(*summary['files'], sep='\n')
    return 0 if summary['images'] else 1


def _import(args: argparse.Namespace) -> int:
    from datetime import datetime, timezone

    from mmdet_softpl.atomic_json import json_text, write_texts
    from mmdet_softpl.datasets.annotation_file import load_annotation_file
    from mmdet_softpl.datasets.review_merge import merge_review, rest_of_unlabeled
    from mmdet_softpl.datasets.review_reading import read_reviewed
    from mmdet_softpl.engine.review_folder import read_labels, read_manifest

    manifest = read_manifest(args.review)
    labeled_file = args.labeled or manifest['labeled_file']
    outputs = [path for path in (args.out, args.unlabeled_out) if path is not None]
    for path in outputs:
        _check_output(path, args.overwrite)
        if os.path.realpath(path) in _inputs(args):
            raise ValueError(
                f'{path} is what people corrected, or a file of the export, and would be replaced; '
                'give another name.'
            )
    if len({os.path.realpath(path) for path in outputs}) < len(outputs):
        raise ValueError(
            f'--out and --unlabeled-out are the same file, {args.out}: the merged labels would be '
            'replaced; give two names.'
        )
    if args.unlabeled_out is not None:
        _check_holds_no_labels(args.unlabeled_out, labeled_file)
    seen = None if args.unlabeled_out is None else read_labels(args.review)
    labeled = load_annotation_file(labeled_file)
    reviewed = read_reviewed(args.corrected, manifest)
    complete = _complete(args.reviewed, reviewed, args.corrected)
    merged, summary = merge_review(
        labeled,
        reviewed,
        manifest,
        labeled_file=labeled_file,
        complete=complete,
        reviewer=args.reviewer,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
    )
    result: dict[str, Any] = dataclasses.asdict(summary) | dict(out=None, unlabeled_out=None)
    if summary.images:
        _check_nothing_is_lost(args.out, merged)
        texts = {args.out: json_text(merged)}
        result['out'] = args.out
        if seen is not None:
            now = {i['image'] for i in manifest['images'] if i['file'] in complete}
            roots = manifest.get('labeled_root') or '.', manifest['image_root']
            rest = rest_of_unlabeled(seen, now, merged, *roots)
            texts[args.unlabeled_out] = json_text(rest)
            result['unlabeled_out'] = args.unlabeled_out
        write_texts(texts)
    _say_import(result, args)
    return 0 if summary.images else 1


def _check_output(path: str, overwrite: bool) -> None:
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f'{path} exists; give another name, or --overwrite.')
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: the folder of {path} does not exist; make it first.')


def _check_holds_no_labels(path: str, labeled_file: str) -> None:
    """What ``--unlabeled-out`` writes has no annotation, so none may be in what it replaces."""
    from mmdet_softpl.datasets.annotation_file import AnnotationError, load_annotation_file

    if not os.path.exists(path):
        return
    if os.path.realpath(path) == os.path.realpath(labeled_file):
        raise ValueError(
            f'--unlabeled-out {path} is the labelled json, and its labels would be lost; give '
            'another name.'
        )
    try:
        count = len(load_annotation_file(path).get('annotations') or ())
    except AnnotationError:
        # No labels are in there.
        return
    if count:
        raise ValueError(
            f'--unlabeled-out {path} has {count} annotations, which would be lost; give another '
            'name.'
        )


def _check_nothing_is_lost(path: str, merged: dict[str, Any]) -> None:
    """An earlier import may be in the file that ``--overwrite`` would replace."""
    from mmdet_softpl.datasets.annotation_file import image_file_name, load_annotation_file

    if not os.path.exists(path):
        return
    kept = {image_file_name(image) for image in merged['images']}
    old = load_annotation_file(path).get('images') or []
    lost = [name for image in old if (name := image_file_name(image)) not in kept]
    if lost:
        raise ValueError(
            f'{path}: has {len(lost)} images that the merged labels lack, such as {lost[0]!r}; if '
            f'they are of an earlier import, give --labeled {path}, otherwise another --out.'
        )


def _inputs(args: argparse.Namespace) -> set[str]:
    """Files that nothing may replace."""
    files = [args.corrected, *(path for path in Path(args.review).iterdir() if path.is_file())]
    return {os.path.realpath(path) for path in files}


def _complete(reviewed_arg: str | None, reviewed: list, corrected: str) -> set[str]:
    """Names of the files whose images are reviewed as a whole."""
    if reviewed_arg is None:
        silent = [image.file for image in reviewed if image.complete is None]
        if silent:
            raise ValueError(
                f'{corrected}: a COCO file does not say which images are reviewed as a whole, and '
                'what is not annotated is background in training. Give --reviewed all, or '
                '--reviewed FILE with the names of those images, one a line.'
            )
        return {image.file for image in reviewed if image.complete}
    # A task that nobody submitted, or that its reviewer called unfinished, stays so.
    possible = {image.file for image in reviewed if image.complete is not False}
    if reviewed_arg == 'all':
        return possible
    from mmdet_softpl.datasets.review_reading import exported_file

    path = Path(reviewed_arg)
    if not path.is_file():
        raise FileNotFoundError(f'--reviewed {path}: there is no such file (or give "all").')
    try:
        # Notepad may begin the file with a byte order mark.
        names = [line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(
            f'--reviewed {path}: no text; it takes a list of image names, one a line.'
        ) from error
    names = [name for name in names if name]
    files = {image.file for image in reviewed}
    found = {name: exported_file(name, files) for name in names}
    unknown = [name for name, file in found.items() if file is None]
    if unknown:
        raise ValueError(
            f'--reviewed {path}: {len(unknown)} of {len(names)} lines are no image of {corrected}: '
            f'{", ".join(textwrap.shorten(name, 80) for name in unknown[:10])}. It takes a list of '
            'image names, one a line.'
        )
    return possible & set(found.values())


def _say_import(result: dict[str, Any], args: argparse.Namespace) -> None:
    for warning in result['warnings']:
        print(f'warning: {warning}', file=sys.stderr)
    left_out = result['left_out']
    total = {k: sum(result[k].values()) for k in ('accepted', 'corrected', 'added', 'deleted')}
    pseudo = total['accepted'] + total['corrected'] + total['deleted']
    if pseudo and total['deleted'] == pseudo:
        why = (
            f'and {total["added"]} objects are all somewhere else: were the images resized, or the '
            'coordinates changed?'
            if total['added']
            else 'and the images count as background: was the json exported with its annotations?'
        )
        print(f'warning: every pseudo-label was deleted, {why}', file=sys.stderr)
    already = result['labelled_already']
    if already:
        print(
            f'warning: {len(already)} images are labelled already and stay as they are: '
            f'{some_of(already, separator=", ")}',
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps(result))
        return
    print(
        f'{result["images"]} images became labelled. Of {pseudo} pseudo-labels '
        f'{total["accepted"]} were accepted, {total["corrected"]} corrected '
        f'({result["relabelled"]} in class), {total["deleted"]} deleted; {total["added"]} objects '
        'were added.'
    )
    if left_out:
        print(
            f'{len(left_out)} images are not complete and stay unlabelled: '
            f'{some_of(left_out, separator=", ")}'
        )
    for name in ('out', 'unlabeled_out'):
        if result[name]:
            print(result[name])
    if not result['images']:
        print('nothing was written', file=sys.stderr)
