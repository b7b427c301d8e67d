"""``export``: a plain MMDetection detector out of one of our checkpoints.

The result is a config and weights that MMDetection loads without this package: the teacher
or the student alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

NAME = 'export'
HELP = 'turn a checkpoint into a plain MMDetection detector'

NETWORKS = ('teacher', 'student')
MAX_CHECKED = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.epilog = 'example: python -m mmdet_softpl export work_dirs/parts/iter_20000.pth shipped'
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint (.pth) of a training')
    parser.add_argument('out_dir', metavar='OUT_DIR', help='gets detector.py and detector.pth')
    parser.add_argument(
        '--from',
        dest='network',
        choices=NETWORKS,
        default='teacher',
        help='which network of a semi-supervised checkpoint (default: teacher)',
    )
    parser.add_argument(
        '--rebalance', metavar='JSON', help='shift the class biases by a file of `rebalance`'
    )
    parser.add_argument('--config', help='config of the training, if not the one in CHECKPOINT')
    parser.add_argument(
        '--fp16', action='store_true', help='weights in half precision: a file of half the size'
    )
    parser.add_argument(
        '--check',
        metavar='IMAGES',
        help='an image or a folder: compare what both detectors say of (at most 20 of) them; exit '
        'status 1 where they differ, or neither finds anything',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier export')
    parser.add_argument('--json', action='store_true', help='print a JSON object')


def run(args: argparse.Namespace) -> int:
    """Export and say what was written and what was left out."""
    from mmdet_softpl.engine.export_check import SCORE_THR

    # Standard output is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        summary = export(
            args.checkpoint,
            args.out_dir,
            args.network,
            args.config,
            overwrite=args.overwrite,
            half=args.fp16,
            check=args.check,
            rebalance=args.rebalance,
        )
    check = summary['check']
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        for name in summary['dropped']:
            print(f'left out (training only): {name}')
        print(f'config:  {summary["config"]}\nweights: {summary["weights"]}')
        if check is not None and not check['detections']:
            print(
                f'check:   neither finds anything above a score of {SCORE_THR} on '
                f'{check["images"]} images, so nothing was compared'
            )
        elif check is not None:
            print(
                f'check:   {check["paired"]} of {check["detections"]} detections on '
                f'{check["images"]} images are the same in both, scores within '
                f'{check["score_difference"]:.2g}'
            )
    return 0 if check is None or check['agrees'] else 1


def export(
    checkpoint: str,
    out_dir: str,
    network: str = 'teacher',
    config: str | None = None,
    *,
    overwrite: bool = False,
    half: bool = False,
    check: str | None = None,
    rebalance: str | None = None,
) -> dict[str, Any]:
    """Write ``detector.py`` and ``detector.pth`` to ``out_dir``.

    Args:
        checkpoint: checkpoint file of a semi-supervised detector, or of a plain one with
            our head.
        out_dir: folder to write to; made if missing.
        network: ``'teacher'`` or ``'student'``; of no effect on a plain detector.
        config: config file of the training; None: the text in the checkpoint.
        overwrite: whether earlier files may be replaced.
        half: weights in half precision.
        check: an image, or a folder of images, on which the export is compared with the network.
        rebalance: json of ``rebalance``, whose shifts its class biases (and those of the network
            that it is compared with) get.

    Returns:
        ``config`` and ``weights``: the paths written; ``dropped``: sorted names of entries of
        the state dict that the plain detector does not have; ``check``: the attributes of
        :class:`.ExportCheck`, or None.

    Raises:
        ExportError: the checkpoint has no config, lacks weights of the detector, or its config
            has a type without a stock counterpart.
        TrainedModelError: the checkpoint is missing or cannot be read.
        FileExistsError: of an earlier export.
        FileNotFoundError: ``check`` has no image; there is no ``rebalance``.
        ValueError: an image of ``check`` cannot be read; ``rebalance`` is of other classes or of
            the other network, or no such file.
        OSError: the files cannot be written; an earlier export stays as it was.
        NotADirectoryError: ``out_dir`` is a file.
    """
    import torch

    from mmdet_softpl.atomic_json import replaced_together
    from mmdet_softpl.engine.class_biases import check_softmax, class_bias_key, shifted
    from mmdet_softpl.engine.export_check import check_export, halved
    from mmdet_softpl.engine.load_teacher import read_checkpoint
    from mmdet_softpl.engine.plain_detector import dataset_meta, plain_detector, training_config
    from mmdet_softpl.engine.rebalancing import read_shifts

    images = _images(check) if check is not None else []
    if Path(out_dir).is_file():
        raise NotADirectoryError(
            f'OUT_DIR {out_dir}: a file, but a folder is needed; the checkpoint comes before it'
        )
    config_file, weights_file = (Path(out_dir) / f'detector.{ext}' for ext in ('py', 'pth'))
    for path in (config_file, weights_file):
        if path.exists() and not overwrite:
            raise FileExistsError(f'{path} exists; give --overwrite or another OUT_DIR')

    loaded = read_checkpoint(checkpoint)
    cfg = training_config(loaded, checkpoint, config)
    source = loaded['state_dict']
    plain = plain_detector(cfg, source, network, checkpoint)
    classes_meta = dataset_meta(loaded, plain.cfg, checkpoint)
    state_dict = plain.state_dict
    if rebalance is not None:
        check_softmax(plain.model)
        classes = classes_meta['classes']
        biases = class_bias_key(state_dict)
        shifts, doubts = read_shifts(rebalance, classes, network, checkpoint, biases)
        for doubt in doubts:
            print(f'warning: {doubt}', file=sys.stderr)
        source, state_dict = shifted(source, shifts), shifted(state_dict, shifts)
    if half:
        state_dict = halved(state_dict)

    text = plain.cfg.pretty_text
    meta = {'cfg': text, 'dataset_meta': classes_meta}
    config_file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_together(weights_file, config_file) as (weights, shipped):
        shipped.write_text(text, encoding='utf-8')
        try:
            torch.save({'meta': meta, 'state_dict': state_dict}, weights)
        # What torch makes of a full disk.
        except RuntimeError as error:
            raise OSError(str(error)) from error
    written = (str(config_file), str(weights_file))
    found = None
    if images:
        found = asdict(check_export(cfg, source, network, written, images, half=half))
    return {'config': written[0], 'weights': written[1], 'dropped': plain.dropped, 'check': found}


def _images(path: str) -> list[str]:
    """The image, or those of a folder, at most 20 spread evenly."""
    from mmdet_softpl.datasets.image_scan import scan_image
    from mmdet_softpl.datasets.unlabeled_image_dataset import find_images

    found = [path] if os.path.isfile(path) else []
    if os.path.isdir(path):
        found = find_images(path)
    if not found:
        raise FileNotFoundError(f'--check {path}: there is no image')
    chosen = found[:: -(-len(found) // MAX_CHECKED)]
    for image in chosen:
        scanned = scan_image(image)
        if not scanned.readable:
            raise ValueError(f'--check {image}: the image cannot be read ({scanned.error})')
    return chosen
