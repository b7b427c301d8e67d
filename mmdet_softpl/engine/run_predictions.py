"""The teacher's detections of a data set, kept in a file, as an evaluation takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, pseudo_collate

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.load_items import load_items
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.models import CalibratedSoftTeacher


@torch.no_grad()
def predict_or_read(
    detector: Callable[[], CalibratedSoftTeacher],
    dataset: BaseDataset,
    metric: LongTailMetric,
    path: Path,
    source: dict[str, Any],
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Records of ``metric.process``, one an image, by the teacher or read from ``path``.

    Args:
        detector: Makes the detector; not called where the file is there.
        dataset: With a test pipeline.
        metric: Says whether masks are wanted.
        path: json of the predictions, written when they are complete.
        source: What they depend on; a file of another source is made anew.
        batch_size: Images in a forward pass.
        progress: Called with the images done and all.
    """
    if path.is_file():
        known = json.loads(path.read_text(encoding='utf-8'))
        if known.get('source') == source:
            return [_from_plain(record) for record in known['predictions']]
    model = detector().eval()
    metric.results = []
    for start in range(0, len(dataset), batch_size):
        items = load_items(dataset, range(start, min(start + batch_size, len(dataset))))
        data = model.image_preprocessor(pseudo_collate(items), False)
        samples = model.teacher.predict(data['inputs'], data['data_samples'], rescale=True)
        metric.process(None, [sample.to_dict() for sample in samples])
        progress(start + len(items), len(dataset))
    records, metric.results = metric.results, []
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [_to_plain(record) for record in records]
    write_json(path, dict(source=source, predictions=plain))
    return [_from_plain(record) for record in plain]


def _to_plain(record: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in record.items():
        if key == 'masks':
            plain[key] = [
                dict(size=list(mask['size']), counts=mask['counts'].decode()) for mask in value
            ]
        else:
            plain[key] = value.tolist() if isinstance(value, np.ndarray) else value
    return plain


def _from_plain(plain: dict[str, Any]) -> dict[str, Any]:
    record = dict(plain)
    record['bboxes'] = np.asarray(plain['bboxes'], dtype=np.float32).reshape(-1, 4)
    record['labels'] = np.asarray(plain['labels'], dtype=np.int32)
    for key in ('scores', 'mask_scores'):
        if key in plain:
            record[key] = np.asarray(plain[key], dtype=np.float32)
    if 'masks' in plain:
        masks = np.empty(len(plain['masks']), dtype=object)
        masks[:] = [dict(mask, counts=mask['counts'].encode()) for mask in plain['masks']]
        record['masks'] = masks
    return record
