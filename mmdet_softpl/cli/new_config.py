"""``python -m mmdet_softpl new-config``: a config for your own data that trains as it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

NAME = 'new-config'
HELP = 'write a config for your own data'

REQUIRED = ('labeled_json', 'labeled_images', 'unlabeled_images', 'val_json', 'val_images')
QUESTIONS = {
    'labeled_json': 'COCO or LVIS json of the labelled images',
    'labeled_images': 'folder of the labelled images',
    'unlabeled_images': 'folder of the unlabelled images',
    'val_json': 'json of the validation images',
    'val_images': 'folder of the validation images',
}
# Asked for where a path is missing too.
SETTINGS = {
    'arch': 'detector',
    'gpus': 'number of GPUs, 0 for the CPU',
    'gpu_memory': 'GB of memory of one GPU',
    'out': 'name of the config to write',
}
DEFAULTS = dict(arch='mask-rcnn_r50', gpus=1, gpu_memory=24.0, out='my_config.py')
ARCHS = (
    'mask-rcnn_r50',
    'mask-rcnn_r101',
    'cascade-mask-rcnn_r50',
    'cascade-mask-rcnn_r101',
    'mask-rcnn_swin-t',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        'example: python -m mmdet_softpl new-config --labeled-json data/parts/labelled.json '
        '--labeled-images data/parts/images \\\n    --unlabeled-images data/parts/unlabelled '
        '--val-json data/parts/val.json --val-images data/parts/images \\\n    --gpus 1 '
        '--gpu-memory 24 --out parts.py\n\nOn a terminal it asks for what is missing.'
    )
    for name in REQUIRED:
        parser.add_argument(f'--{name.replace("_", "-")}', metavar='PATH', help=QUESTIONS[name])
    parser.add_argument(
        '--unlabeled-json',
        metavar='PATH',
        help='json of the unlabelled images, such as `split` writes (default: all of the folder '
        'that no other json has labels of)',
    )
    parser.add_argument(
        '--held-out-json',
        metavar='PATH',
        help='labelled images to calibrate on and not to train on, such as `split --held-out` '
        'writes; in the folder of the labelled ones (default: calibrate on the labelled batch)',
    )
    parser.add_argument('--arch', choices=ARCHS, help=f'default: {DEFAULTS["arch"]}')
    parser.add_argument('--gpus', type=int, help=f'0 for the CPU (default: {DEFAULTS["gpus"]})')
    parser.add_argument(
        '--gpu-memory',
        type=float,
        metavar='GB',
        help=f'of one GPU (default: {DEFAULTS["gpu_memory"]:g})',
    )
    parser.add_argument('--out', help=f'default: {DEFAULTS["out"]}')
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    parser.add_argument('--json', action='store_true', help='print what was chosen as json')


def run(args: argparse.Namespace) -> int:
    """Check the data, plan the training, write the config.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``, and nothing is written.
    """
    from mmdet_softpl.atomic_json import json_text, replaced_together
    from mmdet_softpl.config_file import load_config
    from mmdet_softpl.datasets.config_text import config_text
    from mmdet_softpl.datasets.own_data import check_own_data, unlabelled_json
    from mmdet_softpl.datasets.training_plan import ARCHITECTURES, plan_training
    from mmdet_softpl.progress import one_by_one

    if args.out is not None:
        _checked_out(args.out, args.force)
    paths = _paths(args)
    out = _checked_out(args.out, args.force)
    data = check_own_data(paths, partial(one_by_one, 'reading images'))
    summary = data.labelled.summary
    assert summary is not None  # check_own_data raises otherwise
    rest = None
    if data.left_out:
        rest = _checked_rest(out, args.force)
        data = dataclasses.replace(data, paths={**data.paths, 'unlabeled_json': str(rest)})
    plan = plan_training(
        args.arch,
        data.labelled.used_images,
        data.unlabelled.used_images,
        gpus=args.gpus,
        gpu_memory=args.gpu_memory,
        longer_side=data.longer_side,
        image_counts=summary.image_counts.tolist(),
    )
    text = config_text(
        data,
        plan,
        args.arch,
        base_lr=_base_lr(ARCHITECTURES[args.arch].schedule),
        gpus=args.gpus,
        gpu_memory=args.gpu_memory,
    )
    with replaced_together(out, *([] if rest is None else [rest])) as (config, *lists):
        config.write_text(text, encoding='utf-8')
        # As a training will read it.
        read = tuple(load_config(str(config)).classes)
        if read != summary.classes:
            first = next(i for i, name in enumerate(summary.classes) if name != read[i])
            raise ValueError(
                f'{args.labeled_json}: class {summary.classes[first]!r} would be {read[first]!r} '
                'in a config, where mmengine replaces what is in double braces; rename it.'
            )
        for file in lists:
            file.write_text(json_text(unlabelled_json(data)), encoding='utf-8')
    warnings = [f'{f.subject}: {f.kind}: {f.detail}\n  -> {f.remedy}' for f in data.warnings]
    if not plan.fits:
        warnings.append(
            f'--gpu-memory {args.gpu_memory:g}: by the estimate two images take more; the config '
            'says what to do if memory runs out'
        )
    if args.gpus == 0:
        warnings.append('--gpus 0: a training on a CPU takes weeks; this is for trying out')
    if args.json:
        report = dict(
            config=str(out),
            unlabeled_json=data.paths['unlabeled_json'],
            arch=args.arch,
            labelled_images=data.labelled.used_images,
            unlabelled_images=data.unlabelled.used_images,
            classes=summary.classes,
            plan=dataclasses.asdict(plan),
            warnings=warnings,
        )
        print(json.dumps(report, indent=1))
        return 0
    for warning in warnings:
        print(f'warning: {warning}', file=sys.stderr)
    if rest is not None:
        print(
            f'{rest}: the {data.unlabelled.used_images:,} images of --unlabeled-images that no '
            f'other json has labels of ({data.left_out:,} are left out)'
        )
    print(
        f'{out}: {args.arch}, {len(summary.classes)} classes, {data.labelled.used_images:,} '
        f'labelled and {data.unlabelled.used_images:,} unlabelled images; {plan.max_iters:,} '
        f'iterations of {plan.batch} images, for {_machine(args.gpus, args.gpu_memory)}'
    )
    launch = f' --gpus {args.gpus} --launcher pytorch' if args.gpus > 1 else ''
    path = shlex.quote(str(out))
    print(f'next: python -m mmdet_softpl inspect {path}')
    print(f'then: mim train mmdet {path}{launch}')
    return 0


def _machine(gpus: int, memory: float) -> str:
    if gpus == 0:
        return 'the CPU (--gpus)'
    return f'{gpus} GPU{"s" if gpus > 1 else ""} of {memory:g} GB (--gpus, --gpu-memory)'


def _checked_out(given: str, force: bool) -> Path:
    out = Path(given)
    if out.suffix != '.py':
        raise ValueError(f'--out {out}: the name of a config ends in .py')
    if out.is_dir():
        raise ValueError(f'--out {out}: a folder; give a file name')
    if out.exists() and not force:
        raise FileExistsError(f'--out {out}: exists already; give another name, or --force')
    if not out.parent.is_dir():
        raise FileNotFoundError(f'--out {out}: the folder {out.parent} does not exist; make it')
    return out


def _checked_rest(out: Path, force: bool) -> Path:
    """Where the list of the unlabelled images goes."""
    rest = out.with_name(f'{out.stem}-unlabeled.json')
    if rest.exists() and not force:
        raise FileExistsError(
            f'{rest}: exists already, perhaps of an earlier {out}, and the list of the unlabelled '
            'images would go there; give another --out, or --force to replace it'
        )
    return rest


def _paths(args: argparse.Namespace) -> dict[str, str]:
    """The arguments, completed by questions where somebody is there to answer."""
    from mmdet_softpl.datasets.own_data import flag

    optional = ('unlabeled_json', 'held_out_json')
    paths = {name: getattr(args, name) or '' for name in (*REQUIRED, *optional)}
    missing = [name for name in REQUIRED if not paths[name]]
    if missing and not sys.stdin.isatty():
        lines = '\n'.join(f'  {flag(name)} PATH: {QUESTIONS[name]}' for name in missing)
        raise ValueError(f'missing:\n{lines}\n(on a terminal new-config asks for them)')
    for name in missing:
        paths[name] = _ask_path(name)
    _complete(args, ask=bool(missing))
    return paths


def _complete(args: argparse.Namespace, ask: bool) -> None:
    """Fill in the settings that were left out, in place, with answers or with what is usual."""
    usual = {**DEFAULTS, **(_gpus_here() if ask else {})}
    for name in SETTINGS:
        if getattr(args, name) is None:
            value = usual[name]
            setattr(args, name, _ask_setting(name, value) if ask else value)


def _gpus_here() -> dict[str, Any]:
    """Number and memory of the GPUs of this machine; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    count = torch.cuda.device_count()
    least = min(torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return dict(gpus=count, gpu_memory=float(least // 2**30))


def _answer(question: str, subject: str) -> str:
    try:
        return input(f'{question}: ').strip()
    except EOFError:
        raise ValueError(f'no answer for the {subject}; nothing was written') from None


def _ask_setting(name: str, usual: Any) -> Any:
    """An answer of the kind of ``usual``, which an empty one stands for."""
    choices = f' ({", ".join(ARCHS)})' if name == 'arch' else ''
    shown = f'{usual:g}' if isinstance(usual, float) else usual
    while True:
        answer = _answer(f'{SETTINGS[name]}{choices} [{shown}]', SETTINGS[name])
        if not answer:
            return usual
        try:
            value = type(usual)(answer)
        except ValueError:
            print(f'{answer!r} is no number', file=sys.stderr)
            continue
        if name != 'arch' or value in ARCHS:
            return value
        print(f'{answer!r} is none of {", ".join(ARCHS)}', file=sys.stderr)


def _ask_path(name: str) -> str:
    from mmdet_softpl.datasets.own_data import path_problem

    while True:
        answer = os.path.expanduser(_answer(QUESTIONS[name], QUESTIONS[name]))
        problem = path_problem(name, answer) if answer else None
        if answer and problem is None:
            return answer
        if problem is not None:
            print(problem, file=sys.stderr)


def _base_lr(schedule: str) -> float:
    """Learning rate of a shipped schedule, which is for 8 images a step."""
    from mmengine.config import Config

    from mmdet_softpl.shipped_configs import config_path

    return Config.fromfile(str(config_path(schedule))).optim_wrapper.optimizer.lr
