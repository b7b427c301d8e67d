"""What is measured of a detector: AP and calibration on a split, pseudo-labels on hidden labels.

Shape letters: **C** foreground classes, **B** confidence bins, **K** detections of an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.model import BaseModel
from torch import Tensor

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.engine.label_images import label_images
from mmdet_softpl.evaluation import LongTailMetric, pseudo_label_quality
from mmdet_softpl.evaluation.ground_truth import GroundTruth, judge_detections
from mmdet_softpl.functional import (
    FREQUENCY_LETTERS,
    chance_ece,
    class_conditional_ece,
    expected_calibration_error,
    reliability_counts,
)
from mmdet_softpl.functional.group_statistics import group_mean
from mmdet_softpl.models.class_state import CONFIDENCE_BINS

BATCH_SIZE = 8
# As in LongTailMetric: fewer judged detections of a class say more about chance.
MIN_PER_CLASS = 10

Report = Callable[[int, int], None]
"""Told the number of images done and of all."""


def evaluate(
    model: BaseModel,
    cfg: Config,
    ann_file: Path,
    images: Path,
    report: Report = lambda done, total: None,
) -> tuple[dict[str, float], Tensor]:
    """AP, AP-Fixed and calibration errors of the teacher on a split.

    Args:
        model: A semi-supervised detector; in evaluation mode afterwards.
        cfg: Of the arm.
        ann_file: LVIS json of the split.
        images: Folder of its images.
        report: Progress.

    Returns:
        The metrics of ``LongTailMetric`` without prefix, and the reliability (3, C, B) of the
        detections.
    """
    dataset = split_dataset(cfg, ann_file, images)
    metric = LongTailMetric(str(ann_file), ap_fixed=True)
    metric.dataset_meta = dataset.metainfo
    model.eval()
    for start in range(0, len(dataset), BATCH_SIZE):
        stop = min(start + BATCH_SIZE, len(dataset))
        with torch.no_grad():
            found = model.test_step(pseudo_collate([dataset[i] for i in range(start, stop)]))
        metric.process(None, [sample.to_dict() for sample in found])
        report(stop, len(dataset))
    values = metric.compute_metrics(metric.results)
    assert metric.reliability is not None
    return values, metric.reliability


def split_dataset(cfg: Config, ann_file: Path, images: Path) -> BaseDataset:
    """The images of a split as an arm's config looks at them for testing."""
    return DATASETS.build(
        dict(
            type='CocoDataset',
            metainfo=cfg.metainfo,
            ann_file=str(ann_file),
            data_prefix=dict(img=f'{images}/'),
            test_mode=True,
            pipeline=cfg.test_pipeline,
        )
    )


def part_of_split(data_root: Path, split: str, num_images: int, folder: Path) -> Path:
    """A json of the first images of a split, in ``folder``; AP counts the objects of its file."""
    path = folder / f'{split}-{num_images}.json'
    if not path.is_file():
        data = json.loads((data_root / 'annotations' / f'{split}.json').read_text())
        data['images'] = data['images'][:num_images]
        chosen = {image['id'] for image in data['images']}
        data['annotations'] = [a for a in data['annotations'] if a['image_id'] in chosen]
        write_json(path, data)
    return path


def sample_of(num_images: int, size: int) -> list[int]:
    """Indices of a fixed sample, spread evenly over a set of ``num_images``."""
    return np.linspace(0, num_images - 1, min(size, num_images)).astype(int).tolist()


def label_sample(
    model: Any,
    cfg: Config,
    num_images: int | None = None,
    report: Report = lambda done, total: None,
) -> list[dict[str, Any]]:
    """What the teacher of this moment labels on the unlabelled images.

    Args:
        model: ``CalibratedSoftTeacher``; in evaluation mode afterwards.
        cfg: Of the arm.
        num_images: Size of a sample, as ``sample_of`` draws it; None for all images.
        report: Progress.

    Returns:
        For each image a dict: ``img_id``, ``bboxes`` (K, 4) in pixels of the image, ``labels``,
        ``scores``, ``confidences`` (calibrated), ``surest`` and ``kept``, each (K,).
    """
    dataset: BaseDataset = DATASETS.build(
        dict(cfg.unlabeled_dataset, pipeline=cfg.test_pipeline, test_mode=True)
    )
    indices = sample_of(len(dataset), num_images or len(dataset))
    seen = []
    for image in label_images(model, dataset, indices, batch_size=BATCH_SIZE):
        found = image.detections
        seen.append(
            dict(
                img_id=image.img_id,
                bboxes=image.original_bboxes,
                labels=found.labels,
                scores=found.scores,
                confidences=found.confidences,
                surest=found.surest,
                kept=found.kept,
            )
        )
        report(len(seen), len(indices))
    return seen


def judged(seen: list[dict[str, Any]], cfg: Config, data_root: Path) -> dict[str, Any]:
    """Quality and calibration of labels from ``label_sample``.

    Returns:
        ``quality``, and for what the student learns from (``pseudo``), every object (``object``)
        and every object before calibration (``object_raw``) a dict with ``errors`` and
        ``reliability`` (3, C, B).
    """
    result: dict[str, Any] = dict(quality=quality(seen, cfg, data_root))
    groups = groups_of(data_root)
    for name, value, chosen in (
        ('pseudo', 'confidences', 'kept'),
        ('object', 'confidences', 'surest'),
        ('object_raw', 'scores', 'surest'),
    ):
        counts = reliability(seen, cfg, data_root, value, chosen)
        result[name] = dict(errors=calibration_errors(counts, groups), reliability=counts.tolist())
    return result


def quality(seen: list[dict[str, Any]], cfg: Config, data_root: Path) -> dict[str, Any]:
    """Quality of the kept pseudo-labels against the hidden labels.

    Returns:
        As ``pseudo_label_quality``, and ``..._per_image`` for all and for each group.
    """
    values = pseudo_label_quality(seen, str(hidden_file(data_root)), classes_of(cfg))
    for prefix in ('', 'rare_', 'common_', 'frequent_'):
        values[f'{prefix}pseudo_per_image'] = values[f'{prefix}pseudo_count'] / max(len(seen), 1)
    return values


def reliability(
    seen: list[dict[str, Any]], cfg: Config, data_root: Path, value: str, chosen: str
) -> Tensor:
    """(3, C, B) count, correct and confidence sum of detections against the hidden labels.

    Args:
        seen: From ``label_sample``.
        cfg: Of the arm.
        data_root: Folder of the data set.
        value: ``'scores'`` or ``'confidences'``.
        chosen: ``'surest'`` (one label an object) or ``'kept'``.
    """
    path, classes = str(hidden_file(data_root)), classes_of(cfg)
    truth = GroundTruth(load_annotation_file(path), classes, path)
    total = torch.zeros(3, len(classes), CONFIDENCE_BINS)
    for image in seen:
        rows = image[chosen]
        labels, values = image['labels'][rows], image[value][rows]
        known, correct = judge_detections(
            truth.image(image['img_id']), image['bboxes'][rows], image['scores'][rows], labels
        )
        total += reliability_counts(
            values[known], labels[known], correct[known], len(classes), CONFIDENCE_BINS
        )
    return total


def calibration_errors(counts: Tensor, groups: Tensor) -> dict[str, float]:
    """``ece``, ``cc_ece`` (``_chance``: of perfectly calibrated ones; ``_r``, ``_c``, ``_f``).

    Also ``confidence_r``, ``_c``, ``_f``, the mean of a group's. NaN where nothing can be said.

    Shape: (3, C, B), (C,) 0 rare, 1 common, 2 frequent.
    """
    per_class = class_conditional_ece(counts, MIN_PER_CLASS)
    means = group_mean(per_class, groups).tolist()
    number, _, confidence = counts.new_zeros(3, len(FREQUENCY_LETTERS)).index_add(
        1, groups, counts.sum(dim=2)
    )
    return dict(
        ece=float(expected_calibration_error(counts)) if counts[0].sum() else float('nan'),
        cc_ece=float(per_class.nanmean()),
        cc_ece_chance=float(chance_ece(counts, MIN_PER_CLASS).nanmean()),
        **{f'cc_ece_{letter}': mean for letter, mean in zip(FREQUENCY_LETTERS, means, strict=True)},
        **{
            f'confidence_{letter}': mean
            for letter, mean in zip(FREQUENCY_LETTERS, (confidence / number).tolist(), strict=True)
        },
    )


def hidden_file(data_root: Path) -> Path:
    """The labels of the unlabelled images."""
    return data_root / 'annotations' / 'hidden_unlabeled.json'


def classes_of(cfg: Config) -> tuple[str, ...]:
    """(C,) class names."""
    return tuple(Path(cfg.metainfo.classes).read_text().split())


def groups_of(data_root: Path) -> Tensor:
    """(C,) 0 rare, 1 common, 2 frequent, by the labelled images."""
    train = json.loads((data_root / 'annotations' / 'train.json').read_text())
    return torch.tensor([FREQUENCY_LETTERS.index(c['frequency']) for c in train['categories']])
