"""The labels of generated images, judged by a teacher: which to keep.

Shape legend: N labels, E kinds of evidence, C classes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_utils
from torch import Tensor

from mmdet_softpl.checks import check_range
from mmdet_softpl.datasets.annotation_checks import (
    AnnotationSummary,
    check_annotations,
    check_same_categories,
)
from mmdet_softpl.datasets.annotation_file import (
    AnnotationError,
    declared_size,
    load_annotation_file,
)
from mmdet_softpl.datasets.config_sets import LABELLED, OTHER, configured_sets
from mmdet_softpl.datasets.review_masks import checked_rle
from mmdet_softpl.datasets.wrong_labels import WRONG_KINDS, right_and_wrong_labels
from mmdet_softpl.engine.config_parts import loading_pipeline
from mmdet_softpl.engine.label_evidence import EVIDENCE, evidence_in_parts
from mmdet_softpl.file_keys import images_key, seen_key
from mmdet_softpl.functional import (
    balanced_threshold,
    class_importance,
    fit_label_gate,
    label_weights,
    precision_threshold,
)
from mmdet_softpl.messages import some_of
from mmdet_softpl.models import CalibratedSoftTeacher

#: A missing label is no label that could be judged.
JUDGED_KINDS = tuple(kind for kind in WRONG_KINDS if kind != 'missing')
#: Wrong labels that are made of each held-out one.
WRONG_PER_RIGHT = 2
#: An object of the teacher's that overlaps a kept label this much is that label's object.
SAME_OBJECT_IOU = 0.5
#: A kept label of which this much lies in a region to ignore would lose its proposals to it.
INSIDE_REGION = 0.5
#: Fewer held-out labels than this, right or wrong, make no gate.
MIN_LABELS = 20


def gate_labels(
    detector: CalibratedSoftTeacher,
    cfg: Config,
    ann_file: str,
    image_root: str,
    held_out_file: str,
    held_out_root: str,
    folder: Path,
    *,
    prepare: Callable[[dict[str, Any]], object] = lambda key: None,
    precision: float | None = None,
    wrong_share: float = 0.25,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> dict[str, Any]:
    """Judge every label of generated images.

    The gate is fitted on the held-out labelled images, whose labels have wrong ones beside them
    (``right_and_wrong_labels``), so that it is known which are wrong. Its threshold is for the
    mix of classes of the generated images (``class_importance``).

    Args:
        detector: Trained.
        cfg: Its config; the pipeline of ``val_dataloader`` (or ``test_dataloader``) is used.
        ann_file, image_root: COCO json and folder of the generated images.
        held_out_file, held_out_root: Of labelled images that the teacher was not trained on.
        folder: Of the teacher's evidence, made if missing; an interrupted call goes on from it,
            and a call with another ``precision`` or ``wrong_share`` needs no teacher.
        prepare: Called when the input is found sound, before anything is written, with all that
            the evidence depends on, but for the teacher's weights.
        precision: Share of right labels that the kept ones should have, in (0, 1]; None: the
            threshold keeps as large a share of the right labels as it drops of the wrong ones.
        wrong_share: Share of the generated labels that is assumed to be wrong, in (0, 1).
        seed: Of the spoilt labels.
        batch_size: Images in a forward pass.
        progress: Called with ``'held-out'`` or ``'generated'``, images done, images in all.

    Returns:
        The content of ``ann_file``: each annotation has ``weight``, the probability in [0, 1]
        that its label is right, ``keep`` and ``evidence``, and the ``area`` of its box where it
        had none; crowd regions are added for objects of the teacher's that no kept label covers
        and that hold none (those of an earlier gate are replaced); ``gate`` says how it was done
        (see ``_describe``).

    Raises:
        AnnotationError: A file cannot be used, or its categories differ from those of the other
            one or of the labelled set of the config (where its json is here).
        ValueError: A number is out of range; too few held-out labels; ``precision`` cannot be
            reached.
    """
    if precision is not None:
        check_range('gate', 'precision', precision, 0, 1, include_lower=False)
    limits = dict(include_lower=False, include_upper=False)
    check_range('gate', 'wrong_share', wrong_share, 0, 1, **limits)
    data, held_out = load_annotation_file(ann_file), load_annotation_file(held_out_file)
    num_classes = detector.num_classes
    summary = check_annotations(
        ann_file, num_classes=num_classes, image_root=image_root, whole_ids=True, data=data
    )
    other = check_annotations(
        held_out_file,
        num_classes=num_classes,
        image_root=held_out_root,
        whole_ids=True,
        data=held_out,
    )
    check_same_categories(summary, other)
    for file, content in ((ann_file, data), (held_out_file, held_out)):
        _check_sizes(file, content['images'])
    data = _without_regions(data)
    trained = _training_summary(cfg)
    if trained is not None:
        check_same_categories(trained, summary)
    # Names and their order are the same in both files, ids need not be.
    labels = {
        name: {category: i for i, category in enumerate(file.category_ids)}
        for name, file in (('held-out', other), ('generated', summary))
    }
    with_masks = detector.teacher.roi_head.with_mask and all(
        a.get('segmentation') for part in (data, held_out) for a in part['annotations']
    )
    if with_masks:
        for file, content in ((ann_file, data), (held_out_file, held_out)):
            _check_masks(file, content)

    spoilt = right_and_wrong_labels(held_out, WRONG_PER_RIGHT, seed, JUDGED_KINDS)
    made = [a['made'] for a in spoilt['annotations'] if not a.get('iscrowd')]
    num_right = made.count('right')
    if min(num_right, len(made) - num_right) < MIN_LABELS:
        raise ValueError(
            f'{held_out_file}: {num_right} labels, beside which {len(made) - num_right} wrong ones '
            f'were made, are too few to fit a gate; {MIN_LABELS} or more of each are needed. Hold '
            'out more images.'
        )
    pipeline = loading_pipeline(cfg)
    datasets = {
        'held-out': _images(cfg, held_out_file, held_out_root, summary.classes, pipeline),
        'generated': _images(cfg, ann_file, image_root, summary.classes, pipeline),
    }
    key: dict[str, Any] = {
        name: seen_key(cfg, dataset.ann_file, images_key(dataset), pipeline)
        for name, dataset in datasets.items()
    }
    prepare(dict(key, seed=seed, evidence=list(EVIDENCE), wrong_per_right=WRONG_PER_RIGHT))
    evidence = {}
    for name, part in (('held-out', spoilt), ('generated', data)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        dataset = datasets[name]
        evidence[name] = evidence_in_parts(
            detector,
            dataset,
            _by_image(part),
            labels[name],
            folder / name,
            with_masks=with_masks,
            batch_size=batch_size,
            progress=partial(_report, progress, name, len(dataset)),
        )

    given, order = _rows(evidence['held-out']), _in_order(spoilt, evidence['held-out'])
    kinds = [a['made'] for a in order]
    right = torch.tensor([kind == 'right' for kind in kinds])
    gate = fit_label_gate(given, right, wrong_share)
    weights = label_weights(given, gate)
    classes, classes_elsewhere = (
        torch.tensor([labels[name][a['category_id']] for a in part], dtype=torch.long)
        for name, part in (
            ('held-out', order),
            ('generated', _in_order(data, evidence['generated'])),
        )
    )
    importance = class_importance(classes, classes_elsewhere, num_classes)
    threshold = (
        balanced_threshold(weights, right, importance)
        if precision is None
        else precision_threshold(weights, right, importance, precision, wrong_share)
    )
    if threshold is None:
        raise ValueError(
            f'gate: no threshold reaches a precision of {precision} on {held_out_file}. Lower '
            '--precision, or train the teacher longer.'
        )
    info = _describe(gate, threshold, weights, kinds, importance, precision, wrong_share)
    return _judge(data, evidence['generated'], gate, threshold, summary.category_ids) | {
        'gate': info
    }


def _training_summary(cfg: Config) -> AnnotationSummary | None:
    """Of the labelled set, whose order of classes is that of the teacher's labels."""
    for one in configured_sets(cfg):
        if one.role == LABELLED and one.kind != OTHER and os.path.isfile(one.ann_file):
            classes = None if isinstance(one.classes, str) else one.classes
            return check_annotations(one.ann_file, classes=classes, require_annotations=False)
    return None


def _report(progress: Callable[[str, int, int], None], name: str, total: int, done: int) -> None:
    progress(name, done, total)


def _images(
    cfg: Config, ann_file: str, root: str, classes: tuple[str, ...], pipeline: list[dict[str, Any]]
) -> BaseDataset:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        return DATASETS.build(
            dict(
                type='mmdet_softpl.UnlabeledImageDataset',
                ann_file=os.path.abspath(ann_file),
                data_prefix=dict(img=os.path.abspath(root)),
                metainfo=dict(classes=classes),
                test_mode=True,
                pipeline=pipeline,
            )
        )


def _by_image(data: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Annotations by image id, without crowd regions."""
    result = defaultdict(list)
    for annotation in data['annotations']:
        if not annotation.get('iscrowd'):
            result[annotation['image_id']].append(annotation)
    return result


def _in_order(data: dict[str, Any], records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Annotations in the order in which the records speak of them."""
    by_image = _by_image(data)
    return [annotation for record in records for annotation in by_image[record['img_id']]]


def _check_sizes(ann_file: str, images: list[dict[str, Any]]) -> None:
    """The host's data set reads the sizes, and labels are moved within their images."""
    unknown = [
        f'id {image["id"]!r}'
        for image in images
        if not (declared_size(image.get('height')) and declared_size(image.get('width')))
    ]
    if unknown:
        raise AnnotationError(
            f'{ann_file}: {len(unknown)} of {len(images)} images without `height` or `width`: '
            f'{some_of(unknown)}. Write the size in pixels into the json.'
        )


def _check_masks(ann_file: str, content: dict[str, Any]) -> None:
    """An RLE of another size would stop the comparison after all images were looked at."""
    sizes = {image['id']: (image['height'], image['width']) for image in content['images']}
    broken = []
    for annotation in content['annotations']:
        runs = annotation['segmentation']
        try:
            if isinstance(runs, dict):
                checked_rle(runs, *sizes[annotation['image_id']])
        except ValueError as error:
            broken.append(f'{annotation["id"]!r} ({error})')
    if broken:
        raise AnnotationError(
            f'{ann_file}: {len(broken)} masks (key `segmentation`) do not fit their image: id '
            f'{some_of(broken)}. Write them again, or correct the size of the image in the json.'
        )


def _without_regions(data: dict[str, Any]) -> dict[str, Any]:
    """The file without what an earlier gate added: they are another teacher's, or doubled."""
    return {**data, 'annotations': [a for a in data['annotations'] if a.get('source') != 'teacher']}


def _rows(records: list[dict[str, Any]]) -> Tensor:
    """(N, E) evidence of all images."""
    return torch.tensor([row for record in records for row in record['evidence']])


def _judge(
    data: dict[str, Any],
    records: list[dict[str, Any]],
    gate: Tensor,
    threshold: float,
    category_ids: tuple[int, ...],
) -> dict[str, Any]:
    """``data`` with weights, verdicts and regions to ignore."""
    rows = _rows(records)
    weights = label_weights(rows, gate).tolist()
    judged = [
        dict(
            _with_area(annotation),
            weight=round(weight, 5),
            keep=weight >= threshold,
            evidence=dict(zip(EVIDENCE, row, strict=False)),
        )
        for annotation, weight, row in zip(
            _in_order(data, records), weights, rows.tolist(), strict=True
        )
    ]
    crowds = (a for a in data['annotations'] if a.get('iscrowd'))
    crowd = [dict(_with_area(a), weight=1.0, keep=True) for a in crowds]
    kept = defaultdict(list)
    for annotation in [*judged, *crowd]:
        if annotation['keep']:
            kept[annotation['image_id']].append(annotation['bbox'])
    next_id = max((a['id'] for a in data['annotations']), default=0) + 1
    regions: list[dict[str, Any]] = []
    for record in records:
        boxes = kept[record['img_id']]
        for found in record['objects']:
            x, y, w, h = found['bbox']
            if boxes and _hides(found['bbox'], boxes):
                continue
            regions.append(
                dict(
                    id=next_id + len(regions),
                    image_id=record['img_id'],
                    category_id=category_ids[found['label']],
                    bbox=found['bbox'],
                    area=w * h,
                    iscrowd=1,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    weight=found['confidence'],
                    keep=True,
                    source='teacher',
                )
            )
    return {**data, 'annotations': [*judged, *crowd, *regions]}


def _hides(region: list[float], boxes: list[list[float]]) -> bool:
    """Whether a region to ignore would take a kept label's proposals from it."""
    same = mask_utils.iou([region], boxes, [0] * len(boxes)).max() >= SAME_OBJECT_IOU
    # With a crowd it is the share of the box that lies within, as of ``ignore_iof_thr``.
    inside = mask_utils.iou(boxes, [region], [1]).max() >= INSIDE_REGION
    return bool(same or inside)


def _with_area(annotation: dict[str, Any]) -> dict[str, Any]:
    """With the box's where it has none: mmdet leaves out what has an area of 0."""
    area = annotation.get('area')
    if isinstance(area, (int, float)) and area > 0:
        return annotation
    return dict(annotation, area=annotation['bbox'][2] * annotation['bbox'][3])


def _describe(
    gate: Tensor,
    threshold: float,
    weights: Tensor,
    kinds: list[str],
    importance: Tensor,
    precision: float | None,
    wrong_share: float,
) -> dict[str, Any]:
    """How the labels were judged: ``threshold``, ``wrong_share``, ``precision`` asked for (or
    None), ``coefficients`` by evidence, ``held_out``: the number of labels and the share that was
    kept, by kind, and ``expected``: ``right_kept`` and ``wrong_dropped``, were the held-out classes
    as often as the generated ones."""
    keep = weights >= threshold
    right = torch.tensor([kind == 'right' for kind in kinds])
    expected = {
        name: round(float((importance * chosen)[of].sum() / importance[of].sum()), 4)
        for name, chosen, of in (('right_kept', keep, right), ('wrong_dropped', ~keep, ~right))
    }
    shares = {}
    for kind in ('right', *JUDGED_KINDS):
        chosen = torch.tensor([k == kind for k in kinds])
        if chosen.any():
            shares[kind] = dict(
                labels=int(chosen.sum()), kept=round(float(keep[chosen].double().mean()), 4)
            )
    bias, *coefficients = gate.tolist()
    return dict(
        threshold=threshold,
        precision=precision,
        wrong_share=wrong_share,
        coefficients=dict(bias=bias, **dict(zip(EVIDENCE, coefficients, strict=False))),
        held_out=shares,
        expected=expected,
    )
