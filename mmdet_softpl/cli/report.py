"""``python -m mmdet_softpl report``: a training as one page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmdet_softpl.reporting.report_page import ModelFindings
    from mmdet_softpl.reporting.work_dir import WorkDir

NAME = 'report'
HELP = 'make one HTML page of a training: curves, classes, pseudo-labels, audit'

EXAMPLE = """example:
  python -m mmdet_softpl report work_dirs/parts
  python -m mmdet_softpl report work_dirs/parts --images 0     # only what the logs say
Start it where the training was started: the config's data paths are relative to that folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument('work_dir', help='work directory of the training, finished or not')
    parser.add_argument('--out', help='the page (default: WORK_DIR/report.html)')
    parser.add_argument(
        '--images',
        type=int,
        default=200,
        help='unlabelled and validation images that the checkpoint looks at for galleries and '
        'audit; 0: none (default: 200)',
    )
    parser.add_argument('--checkpoint', help='instead of the newest one of WORK_DIR')
    parser.add_argument(
        '--hidden-ann-file',
        help='json with labels of the unlabelled images, to judge pseudo-labels by '
        '(default: the validation set is used)',
    )
    parser.add_argument('--device', help='for torch (default: cuda where there is one, else cpu)')
    parser.add_argument('--json', action='store_true', help='print the figures as json')


def run(args: argparse.Namespace) -> int:
    """Read the work directory, look at images, write the page.

    Returns:
        0, also where parts are missing (the page says which). Bad input raises ``ValueError`` or
        ``OSError``.
    """
    from mmdet_softpl._version import __version__
    from mmdet_softpl.atomic_json import finite, write_text
    from mmdet_softpl.reporting.report_page import as_json, missing_parts, render
    from mmdet_softpl.reporting.work_dir import read_work_dir

    work_dir = Path(args.work_dir)
    _check(args)
    found = read_work_dir(work_dir)
    out = Path(args.out) if args.out else work_dir / 'report.html'
    _check_out(out)
    missing = missing_parts(found)
    # Standard output is for the result; the host prints there while it reads annotations.
    with contextlib.redirect_stdout(sys.stderr):
        findings = _look(found, args, missing)
    made = f'Made {datetime.now():%Y-%m-%d %H:%M} by mmdet_softpl {__version__}.'
    write_text(out, render(found, findings, missing, made))
    if args.json:
        print(
            json.dumps(finite(dict(report=str(out), missing=missing, **as_json(found, findings))))
        )
    else:
        for line in missing:
            print(f'not in the report: {line}', file=sys.stderr)
        print(out)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.images < 0:
        raise ValueError(f'--images must be at least 0, got {args.images}.')
    for name in ('checkpoint', 'hidden_ann_file'):
        path = getattr(args, name)
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f'--{name.replace("_", "-")} {path}: there is no such file.')
        if path is not None and args.images == 0:
            raise ValueError(f'--{name.replace("_", "-")} needs --images above 0.')


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f'--out {out} is a folder; give the name of a file, {out}/report.html.')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'--out {out}: there is no folder {out.parent}.')
    if out.suffix.lower() not in ('.html', '.htm'):
        raise ValueError(f'--out {out}: the page is HTML; give a name that ends in .html.')
    folder = os.path.dirname(os.path.realpath(out))
    try:
        # Tried, since what os.access says is not so for root, nor on every network drive.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PermissionError(
            f'--out {out}: nothing can be written to {folder} ({error.strerror or error}); give '
            'an --out elsewhere.'
        ) from error


def _look(found: WorkDir, args: argparse.Namespace, missing: list[str]) -> ModelFindings | None:
    """Galleries and bias check; what cannot be had goes into ``missing``."""
    checkpoint = Path(args.checkpoint) if args.checkpoint else found.checkpoint
    what = 'Galleries and bias check'
    if args.images == 0:
        missing.append(f'{what}: left out by --images 0.')
        return None
    if checkpoint is None:
        missing.append(f'{what}: {found.path} has no checkpoint yet (or give --checkpoint).')
        return None
    import mmdet_softpl  # noqa: F401  (stands in for mmcv's ops)
    from mmdet_softpl.checkpoint_files import written_by

    wrote = None if args.checkpoint else written_by(checkpoint)
    if wrote is not None and wrote < found.begun:
        missing.append(
            f'{what}: {checkpoint} is of an older training in this folder (start {wrote}; the one '
            f'shown here began with {found.begun}), which has no checkpoint yet (or give '
            '--checkpoint).'
        )
        return None
    if found.config is None:
        missing.append(f'{what}: {found.path} has no config beside the checkpoint.')
        return None

    from mmdet_softpl.engine.device import chosen_device
    from mmdet_softpl.engine.look_at_run import RunModel, attempt
    from mmdet_softpl.reporting.gallery import example_tile
    from mmdet_softpl.reporting.report_page import ModelFindings

    device = chosen_device(args.device)
    config = found.config
    model: RunModel | None = attempt(
        lambda: RunModel(config, checkpoint, device, args.images),
        what,
        missing,
        strict=args.checkpoint is not None,
    )
    if model is None:
        return None
    missing.extend(model.doubts)
    looked_at, examples = attempt(model.examples, 'Galleries', missing) or (0, [])
    judged_on, check = attempt(
        lambda: model.check(args.hidden_ann_file),
        'Bias check',
        missing,
        strict=args.hidden_ann_file is not None,
    ) or ('', None)
    if not found.classes:
        found.classes = list(model.classes)
    tiles: dict[str, list] = {}
    for example in examples:
        tiles.setdefault(example.kind, []).append(example_tile(example, found.classes))
    return ModelFindings(looked_at=looked_at, tiles=tiles, check=check, judged_on=judged_on)
