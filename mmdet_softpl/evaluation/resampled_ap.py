"""AP of several detectors over the same images drawn with replacement.

Shape letters: **I** images, **R** draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from mmengine.logging import MMLogger

from mmdet_softpl.evaluation.ground_truth import GroundTruth, coco_api
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric


@contextmanager
def quiet_logger(level: str = 'WARNING') -> Iterator[None]:
    """Without the lines of every evaluation below ``level``, which would fill the log."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def draw_aps(
    metric: LongTailMetric,
    data: dict,
    predictions: Sequence[Sequence[dict]],
    repeats: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, np.ndarray]]:
    """Evaluate every detector on ``repeats`` draws of the images, the same ones for all.

    An image drawn twice is two images of the same content. Everything else is the metric's own
    (LVIS rules, caps, masks).

    Args:
        metric: With ``dataset_meta``; it has evaluated ``data`` at least once.
        data: Content of its annotation file.
        predictions: For each detector the records of ``metric.process``, one an image.
        repeats: R >= 0.
        seed: Of the draws.
        progress: Called with draws done and R.

    Returns:
        For each detector, metric name to (R,) values; -1 where a draw has no object of a group.
    """
    rng = np.random.default_rng(seed)
    images = {image['id']: image for image in data['images']}
    annotations: dict[int, list[dict]] = {img_id: [] for img_id in images}
    for annotation in data['annotations']:
        annotations[annotation['image_id']].append(annotation)
    by_image = [{record['img_id']: record for record in records} for records in predictions]
    img_ids = sorted(set.intersection(*(set(records) for records in by_image)))
    values: list[list[dict[str, float]]] = [[] for _ in predictions]
    for done in range(repeats):
        drawn = rng.choice(img_ids, len(img_ids)).tolist()
        drawn_data = _drawn(data, images, annotations, drawn)
        # What there is to say about the file was said when it was evaluated as a whole.
        with quiet_logger('ERROR'):
            truth = GroundTruth(drawn_data, metric.dataset_meta['classes'], metric.ann_file)
        api = coco_api(drawn_data)
        for records, found in zip(by_image, values, strict=True):
            results = [{**records[img_id], 'img_id': new} for new, img_id in enumerate(drawn, 1)]
            with quiet_logger():
                found.append(metric.evaluate_against(truth, api, results).metrics)
        progress(done + 1, repeats)
    return [
        {key: np.array([draw[key] for draw in found]) for key in (found[0] if found else ())}
        for found in values
    ]


def _drawn(data: dict, images: dict, annotations: dict, drawn: Sequence[int]) -> dict:
    """A file of the drawn images, numbered anew."""
    result: dict = dict(data, images=[], annotations=[])
    for new, img_id in enumerate(drawn, 1):
        result['images'].append(dict(images[img_id], id=new))
        for annotation in annotations[img_id]:
            number = len(result['annotations']) + 1
            result['annotations'].append(dict(annotation, id=number, image_id=new))
    return result
