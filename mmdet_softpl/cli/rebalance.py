"""``rebalance``: how much labelled frequencies should count in a trained detector's scores."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

NAME = 'rebalance'
HELP = 'raise the scores of rare classes of a trained detector as far as held-out images want it'

EXAMPLE = """example:
  softpl rebalance work_dirs/parts/iter_20000.pth --out rebalance.json
  softpl export work_dirs/parts/iter_20000.pth shipped --rebalance rebalance.json

The detector looks at the validation set, or at --held-out JSON --held-out-images DIR, once. How
much each class is shifted by its labelled images is chosen on one half of them and judged on the
other. Nothing is trained. Ctrl-C stops it, the same command goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.set_defaults(resumes=True)
    parser.epilog = EXAMPLE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint (.pth) of a training')
    parser.add_argument(
        '--out', required=True, metavar='JSON', help='gets the shifts of the classes'
    )
    parser.add_argument(
        '--from',
        dest='network',
        choices=('teacher', 'student'),
        default='teacher',
        help='which network of a semi-supervised checkpoint (default: teacher)',
    )
    parser.add_argument('--config', help='config of the training, if not the one in CHECKPOINT')
    parser.add_argument('--held-out', metavar='JSON', help='labelled images (default: validation)')
    parser.add_argument('--held-out-images', metavar='DIR', help='their folder')
    parser.add_argument('--batch-size', type=int, default=8, help='images in a forward pass')
    parser.add_argument('--device', help='such as cuda:1 or cpu (default: the GPU, if any)')
    parser.add_argument('--seed', type=int, default=0, help='of the halves')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier --out')
    parser.add_argument('--json', action='store_true', help='print the result as a JSON object')


def run(args: argparse.Namespace) -> int:
    """Look, choose, judge, write.

    Returns:
        0; 1 where the chosen shifts are worse on the second half (nothing is written then). Bad
        input raises ``ValueError`` or ``OSError``.
    """
    from mmdet_softpl.checks import check_range

    check_range('rebalance', '--batch-size', args.batch_size, 1, None)
    check_range('rebalance', '--seed', args.seed, 0, None)
    out = Path(args.out)
    if out.suffix != '.json':
        raise ValueError(f'--out {out}: give a name that ends in .json; a picture lies beside it.')
    picture = out.with_suffix('.png')
    for path in (out, picture):
        if path.exists() and not (args.overwrite and _is_ours(out)):
            hint = 'give --overwrite or another --out' if _is_ours(out) else 'give another --out'
            raise FileExistsError(f'{path} exists; {hint}')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out.parent}: the folder of --out does not exist; make it')
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        result = _rebalance(args, out)
        if result['verdict'] == 'worse':
            # Of an earlier call: they would contradict this result.
            for path in (out, picture):
                path.unlink(missing_ok=True)
        else:
            _write(result, out)
    print(json.dumps(result)) if args.json else _print(result, args, out)
    return 1 if result['verdict'] == 'worse' else 0


def _is_ours(out: Path) -> bool:
    """Whether an earlier call wrote it, so that it may be replaced."""
    try:
        return {'gamma', 'shifts'} <= json.loads(out.read_text(encoding='utf-8')).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _rebalance(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    import torch

    from mmdet_softpl.datasets.annotation_checks import (
        check_annotations,
        check_num_classes,
        check_same_categories,
    )
    from mmdet_softpl.datasets.annotation_file import load_annotation_file
    from mmdet_softpl.datasets.class_statistics import class_statistics
    from mmdet_softpl.engine.class_biases import class_bias_key
    from mmdet_softpl.engine.config_parts import annotation_path, labelled_file_of
    from mmdet_softpl.engine.device import chosen_device
    from mmdet_softpl.engine.held_out import held_out_dataset, training_images_held_out
    from mmdet_softpl.engine.load_teacher import read_checkpoint
    from mmdet_softpl.engine.part_folder import claim_folder
    from mmdet_softpl.engine.plain_detector import plain_detector, training_config
    from mmdet_softpl.engine.rebalancing import (
        GAMMAS,
        check_replayable,
        choose_strength,
        detections_in_parts,
        halves_of,
    )
    from mmdet_softpl.file_keys import file_key, images_key, seen_key
    from mmdet_softpl.functional import rebalancing_shifts
    from mmdet_softpl.models.roi_adapter import stages_of
    from mmdet_softpl.progress import Progress

    device = chosen_device(args.device)
    loaded = read_checkpoint(args.checkpoint)
    cfg = training_config(loaded, args.checkpoint, args.config)
    plain = plain_detector(cfg, loaded['state_dict'], args.network, args.checkpoint)
    detector = plain.model
    check_replayable(detector)
    biases = class_bias_key(plain.state_dict)
    dataset, leaf = held_out_dataset(cfg, args.held_out, args.held_out_images)
    classes, path = dataset.metainfo.get('classes') or (), annotation_path(leaf)
    labelled_file = labelled_file_of(cfg)
    labelled = check_annotations(labelled_file, classes=classes or None)
    for stage in stages_of(detector.roi_head):
        check_num_classes(labelled, stage.bbox_head.num_classes)
    check_same_categories(labelled, check_annotations(path, classes=classes or None))
    data = load_annotation_file(path)
    img_ids = [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
    halves = halves_of(data, img_ids, args.seed, path)
    warnings = training_images_held_out(cfg, path)
    for warning in warnings:
        print(f'warning: {warning}', file=sys.stderr)
    counts = torch.as_tensor(class_statistics(labelled).image_counts)
    shifts = torch.stack([rebalancing_shifts(counts, gamma) for gamma in GAMMAS])
    key = dict(
        checkpoint=file_key(args.checkpoint),
        network=args.network,
        labelled=file_key(labelled_file),
        shifts=shifts.tolist(),
        **seen_key(cfg, path, images_key(dataset), leaf.get('pipeline')),
    )
    folder = out.with_name(out.name + '.parts')
    claim_folder(folder, key)
    (folder / 'held-out').mkdir(exist_ok=True)
    records = detections_in_parts(
        detector.to(device),
        dataset,
        shifts,
        folder / 'held-out',
        batch_size=args.batch_size,
        progress=Progress('looking at held-out images'),
    )
    found = choose_strength(
        records,
        data,
        halves,
        labelled.classes,
        labelled_file,
        folder,
        seed=args.seed,
        progress=Progress('drawing images'),
    )
    return dict(
        found,
        checkpoint=args.checkpoint,
        class_biases=biases,
        network=args.network,
        held_out=path,
        labelled=labelled_file,
        classes=list(labelled.classes),
        image_counts=counts.tolist(),
        shifts=rebalancing_shifts(counts, found['gamma']).tolist(),
        warnings=warnings,
    )


def _write(result: dict[str, Any], out: Path) -> None:
    from mmdet_softpl.atomic_json import write_json
    from mmdet_softpl.reporting.figure import save_figure
    from mmdet_softpl.reporting.rebalancing import draw_rebalancing

    low, high = (100 * value for value in result['interval'])
    verdict = (
        f'chosen on {result["images"]["choose"]} images; on {result["images"]["report"]} others '
        f'box AP changes by {low:+.1f} to {high:+.1f} (95 %): {result["verdict"]}'
    )
    result['picture'] = str(out.with_suffix('.png'))
    # The json first: it says that the picture is ours, should we be interrupted.
    write_json(out, result, indent=1)
    figure = draw_rebalancing(result['curve'], result['gamma'], verdict)
    save_figure(figure, result['picture'])


def _print(result: dict[str, Any], args: argparse.Namespace, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from mmdet_softpl.reporting.rebalancing import TITLES
    from mmdet_softpl.reporting.table import percent

    keys = [key for key in TITLES if key in result['curve'][0]]
    table = Table(title=f'Box AP on the {result["images"]["choose"]} images it is chosen on')
    for head in ('strength', *(TITLES[key] for key in keys)):
        table.add_column(head, justify='right')
    for point in result['curve']:
        chosen = ' *' if point['gamma'] == result['gamma'] else ''
        table.add_row(f'{point["gamma"]:g}{chosen}', *(percent(point[key]) for key in keys))
    Console().print(table)
    old, new = (result['report'][side] for side in ('old', 'new'))
    shown = ', '.join(f'{TITLES[k]} {percent(old[k])} -> {percent(new[k])}' for k in keys)
    print(f'on the other {result["images"]["report"]} images: {shown}')
    low, high = (100 * value for value in result['interval'])
    print(f'difference of box AP: {low:+.1f} to {high:+.1f} (95 %): {result["verdict"]}')
    if result['verdict'] == 'worse':
        print('nothing was written: keep the detector as it is')
        return
    print(f'{out}\n{result["picture"]}')
    if result['verdict'] == 'cannot tell':
        print('no evidence that this is better: keep the detector as it is')
    else:
        print(f'next: softpl export {args.checkpoint} OUT_DIR --rebalance {out}')
