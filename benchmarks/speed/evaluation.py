"""LVIS evaluation of teacher and student: LongTailMetric against the `lvis` package.

Each side runs in a process of its own, for its peak of memory. As a script this file is one side:
`python -m benchmarks.speed.evaluation SIDE FOLDER` prints what it measured as json.
"""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_utils

from benchmarks.speed.records import Record, of_number

NUM_CLASSES, SIZE, DETECTIONS = 1203, (480, 640), 300
OBJECTS, NEGATIVES = 12, 15
MODELS = ('teacher', 'student')
FIGURES = ('AP', 'AP50', 'AP75', 'APr', 'APc', 'APf')
TOLERANCE = 1e-4


def write_inputs(folder: Path, num_images: int) -> None:
    """An LVIS file and the detections of two models: objects found five times, and noise.

    Classes follow a long tail; 300 detections an image, masks are octagons.
    """
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, NUM_CLASSES + 1) ** 1.1
    share /= share.sum()
    images, annotations = [], []
    found: dict[str, list[dict]] = {name: [] for name in MODELS}
    for image_id in range(1, num_images + 1):
        labels = rng.choice(NUM_CLASSES, OBJECTS, p=share)
        boxes = _boxes(rng, OBJECTS)
        negatives = np.setdiff1d(rng.choice(NUM_CLASSES, NEGATIVES), labels)
        loose = np.unique(labels)[:1]
        images.append(
            dict(
                id=image_id,
                height=SIZE[0],
                width=SIZE[1],
                file_name=f'{image_id}.jpg',
                coco_url=f'http://images/{image_id}.jpg',
                neg_category_ids=(negatives + 1).tolist(),
                not_exhaustive_category_ids=(loose + 1).tolist(),
            )
        )
        for label, box in zip(labels.tolist(), boxes, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=float(0.83 * (x2 - x1) * (y2 - y1)),
                    iscrowd=0,
                    segmentation=[_octagon(box)],
                )
            )
        for name in MODELS:
            jitter = 8 * rng.standard_normal((5, OBJECTS, 4))
            near = (boxes + jitter).reshape(-1, 4)
            rest = DETECTIONS - len(near)
            all_boxes = np.concatenate([near, _boxes(rng, rest)]).clip(0, [640, 480, 640, 480])
            all_boxes[:, 2:] = np.maximum(all_boxes[:, 2:], all_boxes[:, :2] + 1)
            names = np.concatenate([np.tile(labels, 5), rng.choice(NUM_CLASSES, rest, p=share)])
            scores = np.concatenate([rng.beta(3, 2, len(near)), rng.beta(1, 8, rest)])
            masks = [
                mask_utils.merge(mask_utils.frPyObjects([_octagon(box)], *SIZE))
                for box in all_boxes
            ]
            found[name].append(
                dict(
                    img_id=image_id,
                    bboxes=all_boxes.astype(np.float32),
                    scores=scores.astype(np.float32),
                    labels=names,
                    masks=masks,
                )
            )
    for name in MODELS:
        # Ranks in place of scores, so that all differ: the order of equal ones is nobody's to say.
        scores = np.concatenate([image['scores'] for image in found[name]])
        ranks = (scores.argsort().argsort() + 1) / (len(scores) + 1)
        for image, part in zip(found[name], np.split(ranks, num_images), strict=True):
            image['scores'] = part.astype(np.float32)
    on_images = np.zeros(NUM_CLASSES, dtype=int)
    for label in {(a['image_id'], a['category_id'] - 1) for a in annotations}:
        on_images[label[1]] += 1
    categories = [
        dict(
            id=c + 1,
            name=f'class_{c}',
            frequency='rcf'[int(c < 700) + int(c < 200)],
            image_count=int(on_images[c]),
            instance_count=sum(a['category_id'] == c + 1 for a in annotations),
        )
        for c in range(NUM_CLASSES)
    ]
    content = dict(images=images, annotations=annotations, categories=categories, info={})
    (folder / 'lvis.json').write_text(json.dumps(content))
    with open(folder / 'found.pkl', 'wb') as file:
        pickle.dump(found, file)


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """(n, 4) boxes of 20 to 200 pixels inside the image."""
    sides = rng.uniform(20, 200, (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([640, 480]) - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def _octagon(box: np.ndarray) -> list[float]:
    angles = np.arange(8) * np.pi / 4 + np.pi / 8
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    points = centre + half * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return points.ravel().tolist()


def by_ours(folder: Path, found: dict[str, list[dict]]) -> dict[str, float]:
    """Figures of LongTailMetric, one after the other as in TeacherStudentValLoop."""
    from mmdet_softpl.evaluation import LongTailMetric

    metric = LongTailMetric(str(folder / 'lvis.json'), calibration=False)
    metric.dataset_meta = dict(classes=tuple(f'class_{c}' for c in range(NUM_CLASSES)))
    figures: dict[str, float] = {}
    for name in MODELS:
        for image in found[name]:
            predictions = {k: image[k] for k in ('bboxes', 'scores', 'labels', 'masks')}
            metric.process(None, [dict(img_id=image['img_id'], pred_instances=predictions)])
        values = metric.evaluate(len(found[name]))
        figures.update({f'{name} {k.split("/")[-1]}': v for k, v in values.items()})
    return figures


def by_lvis(folder: Path, found: dict[str, list[dict]]) -> dict[str, float]:
    """Figures of the `lvis` package, as mmdet's LVISMetric calls it."""
    # lvis 0.5.3 uses a name that numpy 1.24 took away; here, in a process of its own.
    np.float = float  # type: ignore[attr-defined]
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(folder / 'lvis.json'))
    figures: dict[str, float] = {}
    for name in MODELS:
        for kind in ('bbox', 'segm'):
            results = []
            for image in found[name]:
                for i, (label, score) in enumerate(
                    zip(image['labels'].tolist(), image['scores'].tolist(), strict=True)
                ):
                    x1, y1, x2, y2 = image['bboxes'][i].tolist()
                    result = dict(image_id=image['img_id'], category_id=label + 1, score=score)
                    if kind == 'bbox':
                        result['bbox'] = [x1, y1, x2 - x1, y2 - y1]
                    else:
                        result['segmentation'] = image['masks'][i]
                    results.append(result)
            evaluator = LVISEval(truth, LVISResults(truth, results), kind)
            evaluator.run()
            for figure in FIGURES:
                figures[f'{name} {kind}_{figure}'] = float(evaluator.results[figure])
    return figures


def measure(side: str, folder: Path) -> dict:
    """CPU seconds, bytes of memory beyond the detections, and figures of one side."""
    with open(folder / 'found.pkl', 'rb') as file:
        found = pickle.load(file)
    import mmdet_softpl.evaluation  # noqa: F401  (what importing takes is not the question)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, begin = time.process_time(), time.perf_counter()
    figures = {'ours': by_ours, 'lvis': by_lvis}[side](folder, found)
    return dict(
        work=time.process_time() - start,
        wall=time.perf_counter() - begin,
        memory=1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before),
        figures=figures,
    )


def rows(num_images: int) -> list[Record]:
    """Time, memory and the largest difference of the figures."""
    sides = {}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), num_images)
        for side in ('ours', 'lvis'):
            command = [sys.executable, '-m', 'benchmarks.speed.evaluation', side, folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            sides[side] = json.loads(output.splitlines()[-1])
    ours, lvis = sides['ours'], sides['lvis']
    differences = [abs(ours['figures'][k] - v) for k, v in lvis['figures'].items()]
    common = dict(
        against='the lvis package twice',
        case=f'{num_images:,} images of {DETECTIONS} detections, C = {NUM_CLASSES:,}',
        device='cpu',
    )
    what = 'LVIS evaluation of teacher and student, boxes and masks'
    return [
        of_number(
            ours['work'] / lvis['work'],
            what=what,
            target=0.25,
            wall_ratio=ours['wall'] / lvis['wall'],
            **common,
        ),
        of_number(
            # Started by a large process, a small side's own peak does not show.
            ours['memory'] / max(lvis['memory'], 1),
            what=f'{what}: peak memory',
            target=0.5,
            **common,
        ),
        of_number(
            max(differences),
            what=f'{what}: largest difference of {len(differences)} figures',
            target=TOLERANCE,
            **common,
        ),
    ]


if __name__ == '__main__':
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
