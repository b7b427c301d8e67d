"""Label the unlabelled images, choose what people should review, and write it down."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from mmdet_softpl.atomic_json import write_json
from mmdet_softpl.datasets.annotation_checks import (
    AnnotationSummary,
    check_annotations,
    check_num_classes,
)
from mmdet_softpl.datasets.annotation_file import image_file_name, load_annotation_file
from mmdet_softpl.datasets.class_statistics import class_statistics
from mmdet_softpl.datasets.config_sets import (
    LABELLED,
    UNLABELLED,
    ConfiguredSet,
)
from mmdet_softpl.engine.config_parts import loading_pipeline, training_set
from mmdet_softpl.engine.device import chosen_device
from mmdet_softpl.engine.load_teacher import load_teacher, read_config
from mmdet_softpl.engine.review_folder import (
    IMAGES,
    KEY,
    MANIFEST,
    PARTS,
    ReviewError,
    is_export,
    write_folder,
)
from mmdet_softpl.engine.review_labels import PROJECTED_SIZE, label_in_parts
from mmdet_softpl.evaluation.review_choice import choose_images, expected_gain
from mmdet_softpl.file_keys import images_key, settings_hash
from mmdet_softpl.functional import frequency_boost
from mmdet_softpl.relative_path import relative_path


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how.

    Attributes:
        hours: budget of the reviewers, > 0.
        seconds_per_instance: time that one label takes, > 0 (79: drawing an instance of COCO
            from nothing, arXiv 1405.0312, so that the budget is rather kept than overrun).
        min_confidence: labels of at least this calibrated confidence are shown, in [0, 1], beside
            those that are kept for training.
        format: ``'coco'`` or ``'label-studio'``.
        masks: of COCO files, ``'polygon'`` or ``'rle'``.
        image_url: of Label Studio tasks, what stands before the name of an image.
        images: folder to label instead of the config's unlabelled set, or None.
        batch_size: images in a forward pass.
        device: ``'cuda'``, ``'cpu'``, ...; None: a GPU if there is one.
        overwrite: whether an earlier export in the folder may be replaced.
    """

    hours: float
    seconds_per_instance: float = 79.0
    min_confidence: float = 0.2
    format: str = 'coco'
    masks: str = 'polygon'
    image_url: str = '/data/local-files/?d=images/'
    images: str | None = None
    batch_size: int = 8
    device: str | None = None
    overwrite: bool = False


def export_review(
    config: str,
    checkpoint: str,
    out_dir: str | os.PathLike,
    options: ExportOptions,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Label the unlabelled set, choose images, write the export.

    Args:
        config: of the training, with ``CalibratedSoftTeacher``.
        checkpoint: of that training.
        out_dir: folder of the export; made when missing. Labels that an interrupted call left
            there are used again.
        options: see there.
        progress: called with the images labelled so far and all of them.

    Returns:
        A summary: ``out``, ``files``, ``images_seen``, ``labels_seen``, ``images``, ``labels``,
        ``hours``, ``rare``, ``classes`` (name -> labels chosen) and ``warnings``.

    Raises:
        ReviewError, TrainedModelError, AnnotationError: config, checkpoint, data or folder do not
            fit; before anything is written.
    """
    out = Path(out_dir)
    manifest_file = out / MANIFEST
    if out.exists() and not out.is_dir():
        raise ReviewError(f'{out}: --out must be a folder, this is a file.')
    if out.exists() and any(out.iterdir()) and not is_export(out):
        raise ReviewError(
            f'{out}: the folder holds other files, and an export clears {IMAGES}/ in its own; give '
            'a new or empty folder as --out.'
        )
    if manifest_file.exists() and not options.overwrite:
        raise ReviewError(
            f'{manifest_file}: the folder holds an export, which people may be working on. Give '
            'another --out, or --overwrite to choose anew.'
        )
    cfg = read_config(config)
    labelled, _ = training_set(cfg, LABELLED)
    summary = check_annotations(labelled.ann_file, classes=_class_names(labelled))
    detector, doubts = load_teacher(cfg, checkpoint)
    check_num_classes(summary, detector.num_classes)
    dataset, image_root = _unlabeled_dataset(cfg, options.images)

    key = _key(cfg, checkpoint, dataset, options)
    labels_file = out / KEY
    if labels_file.is_file() and json.loads(labels_file.read_text(encoding='utf-8')) != key:
        if not options.overwrite:
            raise ReviewError(
                f'{labels_file}: the labels in this folder are of another checkpoint, config, '
                'image set or --min-confidence. Give another --out, or --overwrite.'
            )
        # First: without it nothing is imported, however far the new labels get.
        manifest_file.unlink(missing_ok=True)
        if (out / PARTS).exists():
            shutil.rmtree(out / PARTS)
    out.mkdir(parents=True, exist_ok=True)
    # First: it makes the folder ours.
    write_json(labels_file, key)
    (out / PARTS).mkdir(exist_ok=True)

    records = label_in_parts(
        detector.to(chosen_device(options.device)),
        dataset,
        out / PARTS,
        min_confidence=options.min_confidence,
        batch_size=options.batch_size,
        progress=lambda done: progress(done, len(dataset)),
    )
    fresh, known = _without_labelled(records, labelled)
    if known:
        doubts.append(
            f'{known} of {len(records)} images are labelled already, by their place; they are not '
            'chosen'
        )
    manifest = _manifest(
        fresh,
        summary,
        options,
        config=config,
        checkpoint=checkpoint,
        checkpoint_sha256=key['checkpoint_sha256'],
        labeled_file=labelled.ann_file,
        labeled_root=labelled.image_root or '.',
        image_root=image_root,
        masks=bool(detector.teacher.roi_head.with_mask),
    )
    # Without a manifest the next call goes on with these labels and other choices.
    files = []
    if manifest['images']:
        files = write_folder(out, manifest, options.format, options.masks, options.image_url)
    labels = Counter(e['class'] for image in manifest['images'] for e in image['objects'])
    letters = dict(zip(summary.classes, class_statistics(summary).groups, strict=True))
    if not manifest['images']:
        doubts.append(
            'nothing was chosen, so nothing was written but the labels, which the next call takes '
            'up: no label fits into the budget or passes --min-confidence; raise --hours, or lower '
            '--min-confidence.'
        )
    return dict(
        out=str(out),
        files=files,
        images_seen=len(records),
        labels_seen=sum(len(record['objects']) for record in records),
        images=len(manifest['images']),
        labels=sum(labels.values()),
        hours=manifest['seconds'] / 3600,
        rare=sum(n for name, n in labels.items() if letters[name] == 'r'),
        classes=dict(labels.most_common()),
        warnings=doubts,
    )


def _without_labelled(
    records: list[dict[str, Any]], labelled: ConfiguredSet
) -> tuple[list[dict[str, Any]], int]:
    """The records with no object where the image is one of the labelled set, and how many are."""
    root = labelled.image_root or '.'
    data = load_annotation_file(labelled.ann_file)
    names = [image_file_name(image) or '' for image in data['images']]
    paths = {os.path.realpath(os.path.join(root, name)) for name in names}
    known = [os.path.realpath(record['path']) in paths for record in records]
    fresh = [dict(r, objects=[]) if k else r for r, k in zip(records, known, strict=True)]
    return fresh, sum(known)


def _class_names(labelled: ConfiguredSet) -> tuple[str, ...] | None:
    if isinstance(labelled.classes, str):
        raise ReviewError(
            f'metainfo.classes is the string {labelled.classes!r}; a single class is written '
            f'({labelled.classes!r},).'
        )
    return labelled.classes


def _unlabeled_dataset(cfg: Config, images: str | None) -> tuple[BaseDataset, str]:
    """The unlabelled images with the test pipeline, and the folder they are in."""
    pipeline = loading_pipeline(cfg)
    if images is not None:
        dataset: dict[str, Any] = dict(type='mmdet_softpl.UnlabeledImageDataset', data_root=images)
        root = images
    else:
        unlabelled, dataset = training_set(cfg, UNLABELLED, ', or a folder with --images')
        root = unlabelled.image_root
    dataset.update(pipeline=pipeline, test_mode=True)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        return DATASETS.build(dataset), root


def _key(
    cfg: Config, checkpoint: str, dataset: BaseDataset, options: ExportOptions
) -> dict[str, Any]:
    """What the labels depend on."""
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    seen_as = [images_key(dataset), loading_pipeline(cfg)]
    with open(checkpoint, 'rb') as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return dict(
        checkpoint_sha256=digest.hexdigest(),
        settings=settings_hash([cfg.model, paths, *seen_as]),
        images=len(paths),
        min_confidence=options.min_confidence,
    )


def _manifest(
    records: list[dict[str, Any]],
    summary: AnnotationSummary,
    options: ExportOptions,
    *,
    labeled_root: str,
    image_root: str,
    **origin: Any,
) -> dict[str, Any]:
    """Choose images; what the import needs to know about them."""
    objects = [entry for record in records for entry in record['objects']]
    labels = np.array([entry['label'] for entry in objects], dtype=np.int64)
    counts = torch.as_tensor(np.asarray(summary.image_counts), dtype=torch.float32)
    factors = frequency_boost(counts).numpy()
    # Of what a label may well be: look-alikes of a rare class are where its instances hide.
    rarity = [float(np.dot(factors[e['classes']], e['shares']) / sum(e['shares'])) for e in objects]
    gains = expected_gain(
        np.array([entry['confidence'] for entry in objects]),
        np.array([entry['disagreement'] for entry in objects]),
        np.array(rarity),
    )
    image_of = np.repeat(np.arange(len(records)), [len(r['objects']) for r in records])
    choice = choose_images(
        gains,
        image_of,
        labels,
        np.array([entry['feature'] for entry in objects]).reshape(-1, PROJECTED_SIZE),
        len(records),
        budget=options.hours * 3600,
        seconds_per_instance=options.seconds_per_instance,
    )
    first = np.concatenate(([0], np.cumsum([len(r['objects']) for r in records])))
    names = _unique_names([record['path'] for record in records])
    images = []
    for index, gain in zip(choice.images, choice.gains, strict=True):
        record = records[index]
        shown = []
        for k, entry in enumerate(record['objects']):
            kept = {
                'class': summary.classes[entry['label']],
                'gain': float(gains[first[index] + k]),
            }
            names_kept = ('bbox', 'score', 'confidence', 'disagreement', 'rle')
            shown.append(kept | {n: entry[n] for n in names_kept if n in entry})
        images.append(
            dict(
                image=index,
                file=names[index],
                path=record['path'],
                labeled_file_name=relative_path(record['path'], labeled_root),
                height=record['height'],
                width=record['width'],
                gain=gain,
                objects=shown,
            )
        )
    return dict(
        version=1,
        created=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        **origin,
        labeled_root=labeled_root,
        image_root=image_root,
        classes=list(summary.classes),
        hours=options.hours,
        seconds_per_instance=options.seconds_per_instance,
        seconds=choice.seconds,
        images=images,
    )


def _unique_names(paths: list[str]) -> list[str]:
    """File names; the position stands before those that more than one path has."""
    names = [os.path.basename(path) for path in paths]
    # Some tools and file systems do not tell cases apart.
    count = Counter(name.lower() for name in names)
    taken = {name for name, times in count.items() if times == 1}
    unique = []
    for i, name in enumerate(names):
        if count[name.lower()] > 1:
            name = f'{i:06d}_{name}'
            while name.lower() in taken:
                name = f'{i:06d}_{name}'
            taken.add(name.lower())
        unique.append(name)
    return unique
