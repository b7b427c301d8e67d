"""Average precision through faster-coco-eval, in the style of COCO or of LVIS.

Shape letters: **D** detections of the whole set, **C** foreground classes, **T** = 10 IoU
thresholds from 0.50 to 0.95, **R** = 101 recall levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from mmdet_softpl.functional.frequency import FREQUENCY_LETTERS

NUM_IOUS = 10
NUM_RECALLS = 101
PAIRS_PER_BLOCK = 100_000


@dataclass(frozen=True)
class Detections:
    """Detections of a set.

    Attributes:
        img_ids: (D,) int64.
        labels: (D,) int64 in [0, C).
        scores: (D,) float.
        bboxes: (D, 4) float, (x1, y1, x2, y2) in pixels.
        masks: (D,) object, compressed RLE dicts; None for boxes only.
    """

    img_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    bboxes: np.ndarray
    masks: np.ndarray | None = None

    def __getitem__(self, index: np.ndarray) -> Detections:
        masks = None if self.masks is None else self.masks[index]
        return Detections(
            self.img_ids[index], self.labels[index], self.scores[index], self.bboxes[index], masks
        )

    def __len__(self) -> int:
        return len(self.scores)


def best_of_each(keys: np.ndarray, scores: np.ndarray, limit: int) -> np.ndarray:
    """Rows of the ``limit`` highest scores of every key (ties: the earlier row).

    Shape: (D,) int, (D,) -> (at most D,) int64, ascending.
    """
    order = np.lexsort((-scores, keys))
    sorted_keys = keys[order]
    starts = np.searchsorted(sorted_keys, sorted_keys)
    return np.sort(order[np.arange(len(order)) - starts < limit])


def precision_table(
    api: COCO,
    detections: Detections,
    cat_ids: Sequence[int],
    iou_type: str,
    *,
    federated: bool,
    max_dets: int,
) -> np.ndarray:
    """Interpolated precision of each class at each IoU threshold and recall level.

    Args:
        api: Ground truth. For a federated file every category needs a ``frequency``.
        detections: All that is to be judged.
        cat_ids: (C,) category id by class index.
        iou_type: ``'bbox'`` or ``'segm'``.
        federated: Apply the rules of LVIS (arXiv 1908.03195).
        max_dets: Detections of an image and class that count.

    Returns:
        (T, R, C) in [0, 1]; -1 for classes without an object.
    """
    ids = np.asarray(cat_ids)
    boxes = detections.bboxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    records = [
        {'image_id': image, 'category_id': category, 'bbox': box, 'score': score}
        for image, category, box, score in zip(
            detections.img_ids.tolist(),
            ids[detections.labels].tolist(),
            boxes.tolist(),
            detections.scores.tolist(),
            strict=True,
        )
    ]
    if iou_type == 'segm' and detections.masks is not None:
        for record, mask in zip(records, detections.masks, strict=True):
            record['segmentation'] = mask
            # The area would be the box's, which an external detector may give a negative one.
            del record['bbox']
    found = api.loadRes(records)
    images_of = [
        set(api.catToImgs.get(cat_id, ())) | set(found.catToImgs.get(cat_id, ()))
        for cat_id in cat_ids
    ]
    # Classes are independent. The evaluator makes a table of all images times all classes, which
    # for LVIS takes gigabytes and is empty nearly everywhere: give it few classes at a time, those
    # on few images first, and only the images they are on.
    order = sorted(range(len(cat_ids)), key=lambda c: len(images_of[c]))
    blocks = np.array_split(order, -(-len(order) * len(api.imgs) // PAIRS_PER_BLOCK))
    precision = np.full((NUM_IOUS, NUM_RECALLS, len(cat_ids)), -1.0)
    for block in blocks:
        img_ids = set().union(*(images_of[c] for c in block))
        if not img_ids:
            continue
        evaluator = COCOeval_faster(
            api, found, iou_type, print_function=_silent, lvis_style=federated
        )
        evaluator.params.catIds = sorted(cat_ids[c] for c in block)
        evaluator.params.imgIds = sorted(img_ids)
        evaluator.params.maxDets = [max_dets]
        # Only the range of all areas is read; each further one would cost its own matching.
        evaluator.params.areaRng = [[0, 1e10]]
        evaluator.params.areaRngLbl = ['all']
        evaluator.evaluate()
        evaluator.accumulate()
        by_cat_id = sorted(block, key=lambda c: cat_ids[c])
        precision[:, :, by_cat_id] = np.asarray(evaluator.eval['precision'])[:, :, :, 0, 0]
    return precision


def summarise(precision: np.ndarray, groups: np.ndarray | None) -> dict[str, float]:
    """AP, AP50, AP75 and, where groups are known, APr, APc, APf.

    Shape: (T, R, C), (C,) -> values in [0, 1]; -1 where no class of the group has an object, as
    COCO and LVIS write it.
    """
    values = {
        'AP': _mean(precision),
        'AP50': _mean(precision[:1]),
        'AP75': _mean(precision[5:6]),
    }
    if groups is not None:
        for group, letter in enumerate(FREQUENCY_LETTERS):
            values[f'AP{letter}'] = _mean(precision[:, :, groups == group])
    return values


def class_averages(precision: np.ndarray) -> np.ndarray:
    """AP of each class.

    Shape: (T, R, C) -> (C,) in [0, 1]; -1 for classes without an object.
    """
    # A class without an object has -1 everywhere, any other class nowhere.
    return precision.mean(axis=(0, 1))


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else -1.0


def _silent(*_: object) -> None:
    """faster-coco-eval reports each step; the metric logs one line."""
