"""The files of a small training, for tests of the report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from mmdet_softpl.cli import demo
from mmdet_softpl.datasets.longtail_shapes import generate_longtail_shapes
from mmdet_softpl.datasets.shape_plan import ShapesConfig
from mmdet_softpl.run_records import append_record
from tests.support.tiny_runs import shrink_model

NAMES = ('ant', 'bee <b>', 'cat', 'dog')
GROUPS = (0, 0, 1, 2)
GROUP_NAMES = ('rare', 'common', 'frequent')
EXPECTED = (0.01, 0.02, 0.5, 1.0)
# First and last validation of the teacher; -1: no object.
FIRST = (0.0, 0.3, 0.2, -1)
LAST = (0.25, 0.1, 0.2, -1)


def write_run(path: Path, names: tuple[str, ...] = NAMES) -> Path:
    """A finished training of 40 iterations without checkpoint.

    Losses at 10, 20, 30, 40; validations of teacher and student at 20 and 40, refreshes at 15,
    25 and 35.

    Returns:
        ``path``.
    """
    start = path / '20260101_000000'
    vis = start / 'vis_data'
    vis.mkdir(parents=True)
    count = len(names)
    groups = [GROUPS[c % 4] for c in range(count)]
    expected = [EXPECTED[c % 4] for c in range(count)]
    tables = [[values[c % 4] for c in range(count)] for values in (FIRST, LAST)]
    lines: list[dict[str, Any]] = []
    append_record(
        start / 'validations.jsonl', dict(start_iter=0, classes=list(names), groups=groups)
    )
    for i, ap in ((10, None), (20, 0), (30, None), (40, 1)):
        lines.append(dict(loss=50.0 / i, sup_loss_cls=30.0 / i, unsup_loss_cls=20.0 / i, iter=i))
        if ap is None:
            continue
        metrics = {
            'longtail/segm_AP': 0.1 + 0.1 * ap,
            'longtail/segm_APr': 0.02 + 0.1 * ap,
            'longtail/cc_ece': 0.2,
        }
        lines.append(
            {f'{p}/{k}': v for p in ('teacher', 'student') for k, v in metrics.items()}
            | dict(step=0, time=1.0)
        )
        part = dict(
            metrics=metrics,
            class_AP=dict(segm=tables[ap]),
            reliability=[[[4.0] * 15] * 3, [[2.0] * 15] * 3, [[3.0] * 15] * 3],
        )
        append_record(
            start / 'validations.jsonl', dict(iter=i, parts=dict(teacher=part, student=part))
        )
    (vis / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    append_record(
        start / 'pseudo_labels.jsonl',
        dict(start_iter=0, classes=list(names), groups=groups, expected_per_image=expected),
    )
    for i in (15, 25, 35):
        append_record(
            start / 'pseudo_labels.jsonl',
            dict(
                iter=i,
                images=100,
                kept_per_image=[0.0 if c % 4 == 0 else 2 * expected[c] for c in range(count)],
                thresholds=[0.5] * count,
                boosts=[2.5 if c % 4 == 1 else 1.0 for c in range(count)],
            ),
        )
    (vis / 'config.py').write_text("model = dict(type='X')  # <script>alert(1)</script>\n")
    (start / '20260101_000000.log').write_text(
        'x - INFO - \n----\nSystem environment:\n    sys.platform: linux\n    PyTorch: 2.x\n'
        '    PyTorch compiling details: PyTorch built with:\n  - MKL: yes\n\n'
        'Runtime environment:\n    seed: 0\n'
    )
    classes = [
        dict(
            name=name,
            group=GROUP_NAMES[groups[c]],
            labelled_images=3 + c,
            labelled_instances=5 + c,
            boost=1.0,
            threshold=0.5,
            kept=0 if c % 4 == 0 else 10,
            kept_per_image=0.0 if c % 4 == 0 else 2 * expected[c],
            expected_per_image=expected[c],
            times_damped=0,
            labelled_precision=None,
        )
        for c, name in enumerate(names)
    ]
    (path / 'pseudo_label_audit.json').write_text(json.dumps(dict(classes=classes)))
    return path


def write_trained_run(work: Path) -> Path:
    """A work directory with a checkpoint of a tiny detector that keeps everything, and its data.

    The config has paths below the current folder.

    Returns:
        ``work``.
    """
    args = argparse.Namespace(supervised_iters=3, iters=6, seed=0)
    cfg = demo.load_config(args, work)
    generate_longtail_shapes(
        cfg.data_root,
        ShapesConfig(num_train=28, num_unlabeled=8, num_val=6),
        progress=False,
        workers=1,
    )
    shrink_model(cfg.model)
    cfg.model.semi_train_cfg.update(score_floor=0.0)
    vis = work / '20260101_000000' / 'vis_data'
    vis.mkdir(parents=True)
    cfg.dump(vis / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(cfg.model)
    detector.init_weights()
    state = detector.class_state
    state.thresholds.fill_(0.08)
    state.boosts[0] = 4
    state.groups.copy_(torch.arange(len(state.groups)) % 3)
    torch.save(dict(state_dict=detector.state_dict(), meta={}), work / 'iter_6.pth')
    return work
