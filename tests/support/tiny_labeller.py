"""A labelled file of four classes, and what RareBoostPseudoLabeler sees of a training."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from mmdet_softpl.engine import BurnInMeanTeacherHook, RareBoostPseudoLabeler
from mmdet_softpl.functional import score_histogram
from mmdet_softpl.models.class_state import SCORE_BINS, ClassState

NAMES = ('ant', 'bee', 'cat', 'dog')
# Labelled images per class: rare, rare, common, frequent by the LVIS rule.
IMAGES = (2, 8, 40, 120)


def write(path: Path, lvis: bool = False, images: Any = IMAGES, names: Any = NAMES) -> str:
    """Class c is in the first ``images[c]`` pictures, with two instances in each."""
    annotations = [
        dict(image_id=i, category_id=c + 1, bbox=[1, 1, 4, 4], area=16, iscrowd=0)
        for c, count in enumerate(images)
        for i in range(count)
        for _ in range(2)
    ]
    for i, annotation in enumerate(annotations):
        annotation['id'] = i + 1
    categories: list[dict[str, Any]] = [dict(id=c + 1, name=n) for c, n in enumerate(names)]
    if lvis:
        for c, category in enumerate(categories):
            # The letters are not those of the counts: the file's own win.
            category.update(
                frequency='ffrc'[c], image_count=images[c], instance_count=2 * images[c]
            )
    pictures = [dict(id=i, file_name=f'{i}.jpg', height=9, width=9) for i in range(max(images))]
    content = dict(images=pictures, categories=categories, annotations=annotations)
    path.write_text(json.dumps(content))
    return str(path)


class Ours(nn.Module):
    """What the hook reads of CalibratedSoftTeacher."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.class_state = ClassState(num_classes, 0.5)
        self.unsup_scale = 1.0
        self.has_trainable_batch_norm = False
        self.semi_train_cfg = dict(label_mode='soft')
        self.federated: dict = {}
        self.teacher = nn.Module()
        self.teacher.roi_head = nn.Module()
        self.teacher.roi_head.bbox_head = nn.Linear(1, 1)


def make_runner(tmp_path: Path, model: nn.Module, names: Any = NAMES, **kwargs: Any) -> Any:
    dataset = SimpleNamespace(metainfo=dict(classes=names), ann_file='train.json')
    scalars: list[tuple[int, dict[str, float]]] = []
    warnings: list[str] = []
    return SimpleNamespace(
        model=model,
        train_dataloader=SimpleNamespace(dataset=dataset),
        _val_loop=None,
        _resume=kwargs.get('resume', False),
        iter=0,
        work_dir=str(tmp_path),
        log_dir=str(tmp_path),
        timestamp='20260101_000000',
        hooks=kwargs.get('hooks', [BurnInMeanTeacherHook()]),
        logger=SimpleNamespace(info=lambda text: None, warning=warnings.append),
        _has_loaded=False,
        warnings=warnings,
        visualizer=SimpleNamespace(
            add_scalars=lambda values, step: scalars.append((step, dict(values)))
        ),
        scalars=scalars,
    )


def started(tmp_path: Path, model: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    hook = RareBoostPseudoLabeler(write(tmp_path / 'train.json'), **kwargs)
    runner = make_runner(tmp_path, Ours() if model is None else model)
    hook.before_train(runner)
    return hook, runner


def see(hook: RareBoostPseudoLabeler, scores: dict[int, list[float]], images: int) -> None:
    """Record detections as the detector does."""
    state = hook.class_state
    for label, values in scores.items():
        found = torch.tensor(values)
        labels = torch.full((len(values),), label)
        state.score_histogram += score_histogram(found, labels, state.num_classes, SCORE_BINS)
        state.kept[label] += float((found > state.thresholds[label]).sum())
    state.num_images += images
