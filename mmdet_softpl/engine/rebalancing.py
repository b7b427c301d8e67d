"""How much labelled frequencies should count in a trained detector's scores, by held-out images.

Shape legend: C foreground classes, G strengths, I images, K detections of an image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import TwoStageDetector
from mmengine.dataset import BaseDataset, pseudo_collate
from torch import Tensor, nn

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.load_items import load_items
from mmdet_softpl.datasets.usable_part import usable_part
from mmdet_softpl.engine.class_biases import ClassBiasError, ShiftedBiases, check_softmax
from mmdet_softpl.engine.part_folder import in_parts
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.evaluation.resampled_ap import draw_aps, quiet_logger

#: Strengths that are tried; 0 is the detector as it is.
GAMMAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.4, 1.8)
#: Draws of images for the interval.
DRAWS = 100
MIN_IMAGES = 4
_KEYS = ('bbox_AP', 'bbox_APr', 'bbox_APc', 'bbox_APf')

Report = Callable[[int, int], None]


def check_replayable(detector: nn.Module) -> None:
    """Raise ``ClassBiasError`` where boxes do not come from features and proposals alone."""
    check_softmax(detector)
    roi_head = detector.roi_head
    extra = [name for name in ('with_semantic', 'with_glbctx') if getattr(roi_head, name, False)]
    if extra or not detector.with_rpn:
        what = f'a branch beside its boxes ({extra[0]})' if extra else 'no RPN'
        raise ClassBiasError(
            f'{type(detector).__name__} has {what}, which rebalance cannot replay; keep the '
            'detector as it is.'
        )


def halves_of(
    data: dict[str, Any], img_ids: Sequence[int], seed: int, path: str
) -> dict[str, set[int]]:
    """Images to choose the strength on, and others to judge it on.

    Args:
        data: Annotations.
        img_ids: Of the images that are looked at.
        seed: Of the halves.
        path: Of the annotations, for messages.

    Returns:
        ``choose`` and ``report``.

    Raises:
        ValueError: Fewer than 4 images, or a half without an object.
    """
    if len(img_ids) < MIN_IMAGES:
        raise ValueError(
            f'{path}: {len(img_ids)} images are too few to choose on one half of them and judge '
            'on the other; give some hundred.'
        )
    order = np.random.default_rng(seed).permutation(sorted(img_ids)).tolist()
    halves = dict(choose=set(order[::2]), report=set(order[1::2]))
    shown = {a['image_id'] for a in data['annotations'] if not a.get('iscrowd')}
    for half in halves.values():
        if not half & shown:
            raise ValueError(
                f'{path}: one half of its {len(img_ids)} images shows no labelled object; give '
                'more images, or another --seed.'
            )
    return halves


def detections_in_parts(
    detector: TwoStageDetector,
    dataset: BaseDataset,
    shifts: Tensor,
    folder: Path,
    *,
    batch_size: int = 8,
    progress: Report = lambda done, total: None,
) -> list[list[dict[str, Any]]]:
    """Boxes under each row of ``shifts``, in parts of 64 images that a later call reuses.

    Features and proposals of an image are made once. The caller sees to it that ``folder`` belongs
    to this detector, data set and shifts.

    Args:
        detector: Stock, in evaluation mode; its biases are its own again afterwards.
        dataset: With a test pipeline that ends in ``PackDetInputs``.
        shifts: (G, C) of the class logits.
        folder: Of the parts; must exist.
        batch_size: Images in a forward pass.
        progress: Called with the images done and all images.

    Returns:
        For each of G the I records that ``LongTailMetric.process`` would make of boxes.
    """
    biases = ShiftedBiases(detector)
    records: list[list[dict[str, Any]]] = [[] for _ in shifts]
    total = len(dataset)

    def look(batch: range) -> list[dict[str, Any]]:
        return _look(detector, biases, load_items(dataset, batch), shifts)

    for part in in_parts(
        total, folder, look, batch_size=batch_size, progress=lambda done: progress(done, total)
    ):
        for image in part:
            for found, mine in zip(image['found'], records, strict=True):
                mine.append(
                    dict(
                        img_id=image['img_id'],
                        bboxes=np.array(found['bboxes'], np.float32).reshape(-1, 4),
                        scores=np.array(found['scores'], np.float32),
                        labels=np.array(found['labels'], np.int32),
                    )
                )
    return records


@torch.no_grad()
def _look(
    detector: TwoStageDetector, biases: ShiftedBiases, items: list[Any], shifts: Tensor
) -> list[dict[str, Any]]:
    data = detector.data_preprocessor(pseudo_collate(items), training=False)
    samples = data['data_samples']
    metas = [sample.metainfo for sample in samples]
    features = detector.extract_feat(data['inputs'])
    proposals = detector.rpn_head.predict(features, samples, rescale=False)
    roi_head = detector.roi_head
    images: list[dict[str, Any]] = [dict(img_id=int(m['img_id']), found=[]) for m in metas]
    try:
        for row in shifts:
            biases.set(row)
            results = roi_head.predict_bbox(
                features, metas, proposals, roi_head.test_cfg, rescale=True
            )
            for image, found in zip(images, results, strict=True):
                image['found'].append(
                    dict(
                        bboxes=found.bboxes.double().round(decimals=2).tolist(),
                        scores=found.scores.tolist(),
                        labels=found.labels.tolist(),
                    )
                )
    finally:
        biases.set(torch.zeros_like(shifts[0]))
    return images


def choose_strength(
    records: Sequence[list[dict[str, Any]]],
    data: dict[str, Any],
    halves: dict[str, set[int]],
    classes: Sequence[str],
    labeled_ann_file: str,
    folder: Path,
    *,
    seed: int = 0,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """The strength of the highest box AP on one half of the images, judged on the other.

    Args:
        records: Of ``detections_in_parts``, for each of ``GAMMAS``.
        data: Annotations, of further images too.
        halves: Of ``halves_of``.
        classes: (C,) names.
        labeled_ann_file: json of the labelled set, which gives the frequency groups.
        folder: Gets the annotations of the halves.
        seed: Of the draws.
        progress: Of the draws, done and in all.

    Returns:
        ``gamma``; ``curve``, for each of ``GAMMAS`` a dict of ``gamma`` and box AP in [0, 1] on
        the half that it was chosen on; ``report``, ``old`` and ``new`` on the other half;
        ``interval``, 95 % of the difference of box AP there; ``verdict``: ``'better'``,
        ``'worse'`` or ``'cannot tell'``; ``images`` of both halves.
    """
    # A few unusable boxes are tolerated in a file, and could be too many for its half.
    data = usable_part(data)[0]
    parts, metrics = {}, {}
    for name, chosen in halves.items():
        parts[name] = dict(
            data,
            images=[image for image in data['images'] if image['id'] in chosen],
            annotations=[a for a in data['annotations'] if a['image_id'] in chosen],
        )
        path = folder / f'{name}.json'
        write_json(path, parts[name])
        metrics[name] = LongTailMetric(
            str(path), metric='bbox', labeled_ann_file=labeled_ann_file, calibration=False
        )
        metrics[name].dataset_meta = dict(classes=tuple(classes))

    def values(name: str, mine: list[dict[str, Any]]) -> dict[str, float]:
        with quiet_logger():
            found = metrics[name].compute_metrics([r for r in mine if r['img_id'] in halves[name]])
        return {key.removeprefix('bbox_'): found[key] for key in _KEYS if key in found}

    curve = [
        dict(gamma=gamma, **values('choose', mine))
        for gamma, mine in zip(GAMMAS, records, strict=True)
    ]
    best = int(np.argmax([point['AP'] for point in curve]))
    report = dict(old=values('report', records[0]), new=values('report', records[best]))
    interval = [0.0, 0.0]
    if best:
        pair = [[r for r in records[i] if r['img_id'] in halves['report']] for i in (0, best)]
        old, new = draw_aps(metrics['report'], parts['report'], pair, DRAWS, seed, progress)
        interval = np.quantile(new['bbox_AP'] - old['bbox_AP'], [0.025, 0.975]).tolist()
    low, high = interval
    return dict(
        gamma=GAMMAS[best],
        curve=curve,
        report=report,
        interval=interval,
        verdict='better' if low > 0 else 'worse' if high < 0 else 'cannot tell',
        images={name: len(chosen) for name, chosen in halves.items()},
    )


def read_shifts(
    file: str, classes: Sequence[str], network: str, checkpoint: str, biases: str
) -> tuple[Tensor, list[str]]:
    """(C,) shifts of a json that ``rebalance`` wrote, and what is doubtful about them.

    Args:
        file: Path.
        classes: (C,) names of the detector.
        network: ``'teacher'`` or ``'student'``, which gets the shifts.
        checkpoint: Path of its checkpoint.
        biases: Its :func:`.class_bias_key`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such json, or of other classes or of the other network.
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f'--rebalance {file}: there is no such file')
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        shifts = torch.tensor(content['shifts'], dtype=torch.float32)
        theirs, made_for = list(content['classes']), content['network']
    except (ValueError, KeyError, TypeError) as error:
        why = f'it lacks {error}' if isinstance(error, KeyError) else error
        raise ValueError(f'--rebalance {file}: no json that `rebalance` wrote ({why})') from error
    if theirs != list(classes) or shifts.shape != (len(theirs),) or not shifts.isfinite().all():
        raise ValueError(
            f'--rebalance {file}: made for other classes ({len(theirs)}, the detector has '
            f'{len(classes)}, or in another order), or damaged; make it with this checkpoint.'
        )
    if made_for != network:
        raise ValueError(
            f'--rebalance {file}: made for the {made_for}, but the {network} is exported; give '
            'both commands the same --from.'
        )
    doubts = []
    if content.get('class_biases') != biases:
        doubts.append(
            f'{file} was made with {content.get("checkpoint")}, whose class biases are not those '
            f'of {checkpoint}: another training, or another iteration of it'
        )
    if content.get('verdict') != 'better':
        doubts.append(
            f'{file} says {content.get("verdict")!r}: there is no evidence that it helps on '
            'images that the strength was not chosen on'
        )
    return shifts, doubts
