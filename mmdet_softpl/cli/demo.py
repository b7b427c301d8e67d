"""``python -m mmdet_softpl demo``: the whole package on generated pictures, in minutes."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

NAME = 'demo'
HELP = 'train, evaluate and look at the modules on generated long-tail shapes'

CONFIG = 'calibrated-soft-teacher_mask-rcnn_r18_longtail-shapes'
PICTURED_IMAGES = 9
# Dropped labels below it would fill the picture with guesses that nobody would miss.
PICTURED_SCORE = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to ``parser``."""
    parser.set_defaults(resumes=True)
    parser.epilog = 'example: python -m mmdet_softpl demo --work-dir work_dirs/demo'
    parser.add_argument(
        '--work-dir', default='work_dirs/demo', help='folder of everything it writes'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--supervised-iters', type=int, help='iterations on labelled images alone (config: 400)'
    )
    parser.add_argument('--iters', type=int, help='iterations in all (config: 700)')
    parser.add_argument('--json', action='store_true', help='print metrics.json instead of a table')


def run(args: argparse.Namespace) -> int:
    """Make the data, train (or resume), evaluate, draw.

    Returns:
        0. Bad input raises ``ValueError`` or ``OSError``.
    """
    work_dir = Path(args.work_dir)
    # Standard output is for the result; the host logs there.
    with contextlib.redirect_stdout(sys.stderr):
        metrics = _demo(args, work_dir)
    if args.json:
        print(json.dumps(metrics))
    else:
        _report(metrics, work_dir)
    return 0


def _demo(args: argparse.Namespace, work_dir: Path) -> dict[str, Any]:
    """What metrics.json holds, made if it is not there."""
    result = work_dir / 'metrics.json'
    cfg = load_config(args, work_dir)
    key = dict(
        seed=args.seed,
        supervised_iters=cfg.custom_hooks[0].supervised_iters,
        iters=cfg.train_cfg.max_iters,
    )
    metrics = _finished(result, key)
    if metrics is None:
        _claim(work_dir, key)
        detector, validations = _train(cfg, work_dir)
        metrics = dict(
            settings=key,
            stages=_stages(validations, key),
            **_look(detector, cfg, work_dir),
        )
        from mmdet_softpl.atomic_json import finite, write_json

        # As it is read from the file next time.
        metrics = finite(metrics)
        write_json(result, metrics, indent=1)
    return metrics


def load_config(args: argparse.Namespace, work_dir: Path) -> Any:
    """The demo's config with its data under ``work_dir``.

    Raises:
        ValueError: If there is no iteration of one of the two phases.
    """
    from mmengine.config import Config

    from mmdet_softpl.shipped_configs import config_path

    cfg = Config.fromfile(str(config_path(CONFIG)))
    supervised = cfg.supervised_iters if args.supervised_iters is None else args.supervised_iters
    iters = cfg.max_iters if args.iters is None else args.iters
    if not 0 < supervised < iters:
        raise ValueError(
            f'demo: --supervised-iters {supervised} must lie between 0 and --iters {iters}, so '
            'that both phases have iterations.'
        )
    cfg.custom_hooks[0].supervised_iters = supervised
    # One evaluation right after phase 1, one at the end.
    cfg.train_cfg.update(max_iters=iters, val_interval=supervised)
    cfg.work_dir = str(work_dir)
    cfg.randomness = dict(seed=args.seed)
    plain = replace_prefix(cfg.to_dict(), cfg.data_root, f'{work_dir / "data"}/')
    return Config(plain, filename=cfg.filename)


def replace_prefix(node: Any, old: str, new: str) -> Any:
    """Replace the prefix of every string in nested dicts and lists, in place."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        if isinstance(value, str) and value.startswith(old):
            node[key] = new + value[len(old) :]
        elif isinstance(value, (dict, list)):
            replace_prefix(value, old, new)
    return node


def _finished(result: Path, key: dict) -> dict | None:
    """The metrics of a finished run with the same settings."""
    if not result.is_file():
        return None
    metrics = json.loads(result.read_text(encoding='utf-8'))
    return metrics if metrics.get('settings') == key else None


def _claim(work_dir: Path, key: dict) -> None:
    """Note the settings of the run in its folder.

    Raises:
        ValueError: If the folder holds a run with other settings, which would be resumed.
    """
    from mmdet_softpl.atomic_json import write_json

    path = work_dir / 'settings.json'
    claimed = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else key
    if claimed != key:
        raise ValueError(
            f'demo: {path} is of a run with other settings, {claimed}, not {key}; give '
            'another --work-dir, or remove that folder.'
        )
    work_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, key)


def _train(cfg: Any, work_dir: Path) -> tuple[Any, dict[int, dict[str, float]]]:
    """Train to the end, from the last checkpoint if there is one.

    Returns:
        The trained detector, and the metrics of its validations by iteration.
    """
    from mmengine.device import get_device

    from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
    from mmdet_softpl.datasets.shape_plan import ShapesConfig
    from mmdet_softpl.engine.load_teacher import load_teacher
    from mmdet_softpl.engine.short_training import read_validations, train_or_resume

    generate_longtail_shapes(cfg.data_root, ShapesConfig())
    checkpoint = train_or_resume(cfg, work_dir)
    detector, _ = load_teacher(cfg, str(checkpoint))
    return detector.to(get_device()), read_validations(work_dir)


def _stages(validations: dict[int, dict[str, float]], key: dict) -> dict[str, dict[str, float]]:
    """Rows of the table."""
    from mmdet_softpl.run_records import metrics_by_network

    burn_in = metrics_by_network(validations[key['supervised_iters']])
    last = metrics_by_network(validations[key['iters']])
    return {
        'after burn-in': burn_in['teacher'],
        'teacher': last['teacher'],
        'student': last['student'],
    }


def _look(detector: Any, cfg: Any, work_dir: Path) -> dict[str, Any]:
    """Pictures of the pseudo-labels, and their quality against the hidden labels."""
    from mmdet.registry import DATASETS

    from mmdet_softpl.engine.label_images import label_images
    from mmdet_softpl.evaluation.pseudo_label_quality import (
        pseudo_label_quality,
        pseudo_label_reliability,
    )
    from mmdet_softpl.reporting.class_counts import draw_class_counts
    from mmdet_softpl.reporting.figure import save_figure
    from mmdet_softpl.reporting.pseudo_labels import draw_pseudo_labels
    from mmdet_softpl.reporting.reliability import draw_reliability
    from mmdet_softpl.run_records import AUDIT_FILE

    unlabeled = dict(cfg.unlabeled_dataset, pipeline=cfg.test_pipeline, test_mode=True)
    dataset = DATASETS.build(unlabeled)
    classes = dataset.metainfo['classes']
    groups = detector.class_state.groups.tolist()
    annotations = Path(cfg.data_root) / 'annotations'
    hidden, labelled = str(annotations / 'hidden_unlabeled.json'), str(annotations / 'train.json')

    print('looking at the pseudo-labels', flush=True)
    shown = range(min(PICTURED_IMAGES, len(dataset)))
    pictured = list(label_images(detector, dataset, shown, masks_above=PICTURED_SCORE))
    figure = draw_pseudo_labels(
        [image.image for image in pictured],
        [
            dict(
                bboxes=image.detections.bboxes,
                masks=image.detections.mask_probs,
                labels=image.detections.labels,
                confidences=image.detections.confidences,
                kept=image.detections.kept,
            )
            for image in pictured
        ],
        classes,
    )
    save_figure(figure, work_dir / 'pseudo_labels.png')

    seen = [
        dict(
            img_id=image.img_id,
            bboxes=image.original_bboxes,
            labels=image.detections.labels,
            scores=image.detections.scores,
            confidences=image.detections.confidences,
            kept=image.detections.kept,
        )
        for image in label_images(detector, dataset, range(len(dataset)))
    ]
    quality = pseudo_label_quality(seen, hidden, classes, labelled)
    before, after = pseudo_label_reliability(seen, hidden, classes)
    save_figure(draw_reliability(before, groups, after), work_dir / 'reliability.png')
    audit = json.loads((work_dir / AUDIT_FILE).read_text(encoding='utf-8'))
    counts = [
        sum(int(((s['labels'] == c) & s['kept']).sum()) for s in seen) for c in range(len(classes))
    ]
    labelled_counts = [record['labelled_instances'] for record in audit['classes']]
    figure = draw_class_counts(classes, labelled_counts, counts, groups)
    save_figure(figure, work_dir / 'pseudo_label_counts.png')
    return dict(pseudo_labels=quality)


def _report(metrics: dict, work_dir: Path) -> None:
    from mmdet_softpl.reporting.table import metrics_table
    from mmdet_softpl.run_records import AUDIT_FILE

    print(metrics_table(metrics['stages']))
    quality = metrics['pseudo_labels']

    def share(name: str) -> str:
        value = quality[name]
        return '-' if value is None else f'{value:.2f}'

    for group in ('rare', 'common', 'frequent'):
        print(
            f'pseudo-labels, {group}: {quality[f"{group}_pseudo_count"]} kept, '
            f'precision {share(f"{group}_pseudo_precision")}, '
            f'recall {share(f"{group}_pseudo_recall")}'
        )
    for name in (
        'metrics.json',
        'pseudo_labels.png',
        'pseudo_label_counts.png',
        'reliability.png',
        AUDIT_FILE,
    ):
        print(work_dir / name)
