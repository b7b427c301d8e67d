"""Reviewed images become labelled images, with the origin of every annotation.

Only images that are reviewed as a whole do: in training whatever is not annotated is background,
so an image with some of its objects corrected would teach that the others are none.

Shape legend: R reviewed labels of an image, E exported ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmdet_softpl.relative_path import relative_path

from .annotation_checks import check_annotations
from .annotation_entries import Faults, check_ids
from .annotation_file import image_file_name
from .review_reading import ReviewedImage, ReviewedObject
from .splits import recounted_categories

# A mask this near to the pseudo-label's was left alone: tools round coordinates.
UNCHANGED_IOU = 0.95
# Below it a reviewed object is not what became of a pseudo-label.
MATCH_IOU = 0.5
ACCEPTED, CORRECTED, ADDED = 'accepted', 'corrected', 'added'
LVIS_URL = 'http://images.cocodataset.org/'


@dataclass(frozen=True)
class MergeSummary:
    """What a review changed.

    Attributes:
        images: images that became labelled.
        left_out: files of images that are not complete; they stay unlabelled.
        labelled_already: files of images that the labelled file has, of an earlier import, say;
            they stay there as they are.
        accepted, corrected, added, deleted: class -> pseudo-labels (``added``: objects) that
            reviewers left alone, changed in shape or class (counted at the pseudo-label's class),
            drew, removed; of the images that became labelled.
        relabelled: those of ``corrected`` that got another class.
        warnings: sentences about what is doubtful in the merged file.
    """

    images: int
    left_out: tuple[str, ...]
    labelled_already: tuple[str, ...]
    accepted: dict[str, int]
    corrected: dict[str, int]
    added: dict[str, int]
    deleted: dict[str, int]
    relabelled: int
    warnings: tuple[str, ...]


def merge_review(
    labeled: dict[str, Any],
    reviewed: Sequence[ReviewedImage],
    manifest: dict[str, Any],
    *,
    labeled_file: str,
    complete: Collection[str],
    reviewer: str | None,
    date: str,
) -> tuple[dict[str, Any], MergeSummary]:
    """Add completely reviewed images to a labelled COCO or LVIS file.

    Every new annotation is a single object, whatever the file calls a crowd: the host ignores
    crowds, and an export has none. It has a dict ``provenance``: ``source`` (``'accepted'``,
    ``'corrected'`` or ``'added'``), ``pseudo_confidence`` and ``pseudo_class`` of the
    pseudo-label that it was (None for added ones), ``reviewer``, ``checkpoint_sha256`` and
    ``date``. In LVIS files the classes whose pseudo-labels were all removed become
    ``neg_category_ids`` of the image, nothing is ``not_exhaustive_category_ids``, and
    ``frequency``, ``image_count`` and ``instance_count`` are counted anew.

    Args:
        labeled: content of the labelled file; not changed.
        reviewed: of :func:`.read_reviewed`.
        manifest: of the export.
        labeled_file: its name, for messages.
        complete: names of files whose images are reviewed as a whole.
        reviewer: who reviewed, where the file does not say.
        date: ISO 8601.

    Returns:
        The content of the merged file, checked, and what changed.

    Raises:
        AnnotationError: the labelled file lacks a class of the export, has all of the images
            already or ids that are no whole numbers; the result does not pass
            :func:`.check_annotations`.
    """
    problems = Faults()
    check_ids(labeled, problems)
    category_of = {c['name']: c['id'] for c in labeled['categories']}
    known = {image_file_name(image) for image in labeled['images']}
    places = {image['file']: image for image in manifest['images']}
    whole = [image for image in reviewed if image.file in complete]
    labelled_already = tuple(i.file for i in whole if places[i.file]['labeled_file_name'] in known)
    chosen = [image for image in whole if image.file not in labelled_already]
    for name in manifest['classes']:
        if name not in category_of:
            problems.add(
                'class of the export that `categories` lacks',
                repr(name),
                'Give the labelled file that the export was made with.',
            )
    for file in labelled_already if not chosen else ():
        problems.add(
            'image that is labelled already',
            file,
            'There is no other: an import that happened already needs no second one.',
        )
    problems.raise_if_any(labeled_file)

    images, annotations = list(labeled['images']), list(labeled['annotations'])
    federated = any('neg_category_ids' in image for image in labeled['images'])
    by_url = any('coco_url' in image for image in labeled['images'])
    by_name = any('file_name' in image for image in labeled['images'])
    next_image = max((i['id'] for i in images), default=0) + 1
    next_annotation = max((a['id'] for a in annotations), default=0) + 1
    counts: dict[str, Counter[str]] = {k: Counter() for k in (ACCEPTED, CORRECTED, ADDED)}
    deleted: Counter[str] = Counter()
    relabelled = 0
    for image in chosen:
        place = places[image.file]
        matches, removed = match_objects(image.objects, place['objects'])
        deleted.update(entry['class'] for entry in removed)
        entry = _image_entry(place, next_image, by_name or not by_url, by_url)
        if federated:
            present = {found.class_name for found in image.objects}
            entry['neg_category_ids'] = sorted(
                category_of[name] for name in {e['class'] for e in removed} - present
            )
            entry['not_exhaustive_category_ids'] = []
        images.append(entry)
        for found, (source, origin) in zip(image.objects, matches, strict=True):
            was = None if origin is None else origin['class']
            counts[source][was or found.class_name] += 1
            relabelled += was is not None and was != found.class_name
            annotation = dict(
                id=next_annotation,
                image_id=next_image,
                category_id=category_of[found.class_name],
                bbox=found.bbox,
                area=_area(found),
                iscrowd=0,
                provenance=dict(
                    source=source,
                    pseudo_confidence=None if origin is None else origin['confidence'],
                    pseudo_class=was,
                    reviewer=image.reviewer or reviewer,
                    checkpoint_sha256=manifest['checkpoint_sha256'],
                    date=date,
                ),
            )
            if found.segmentation is not None:
                annotation['segmentation'] = found.segmentation
            annotations.append(annotation)
            next_annotation += 1
        next_image += 1

    categories = recounted_categories(labeled['categories'], annotations)
    merged = {**labeled, 'images': images, 'annotations': annotations, 'categories': categories}
    checked = check_annotations(labeled_file, data=merged)
    left_out = tuple(i.file for i in reviewed if i.file not in complete)
    return merged, MergeSummary(
        images=len(chosen),
        left_out=left_out,
        labelled_already=labelled_already,
        accepted=dict(counts[ACCEPTED]),
        corrected=dict(counts[CORRECTED]),
        added=dict(counts[ADDED]),
        deleted=dict(deleted),
        relabelled=relabelled,
        warnings=checked.warnings,
    )


def match_objects(
    reviewed: Sequence[ReviewedObject], exported: Sequence[dict[str, Any]]
) -> tuple[list[tuple[str, dict[str, Any] | None]], list[dict[str, Any]]]:
    """Which pseudo-label each reviewed object was, by the place alone: tools give new ids.

    Args:
        reviewed: objects of an image.
        exported: pseudo-labels of the same image in the manifest.

    Returns:
        For each reviewed object how it came to be and its pseudo-label (None: added), and the
        pseudo-labels that are gone. Pairs are made by descending IoU down to 0.5; among equal
        ones those of the same class go first.
    """
    origin: list[dict[str, Any] | None] = [None] * len(reviewed)
    source = [ADDED] * len(reviewed)
    gone = set(range(len(exported)))
    if reviewed and exported:
        overlaps = _overlaps(reviewed, exported)
        same = np.array([[r.class_name == e['class'] for e in exported] for r in reviewed])
        order = np.argsort(-(overlaps + 1e-6 * same), axis=None, kind='stable')
        for flat in order:
            i, j = np.unravel_index(flat, overlaps.shape)
            if overlaps[i, j] < MATCH_IOU:
                break
            if origin[i] is None and j in gone:
                gone.discard(int(j))
                origin[i] = exported[j]
                alone = overlaps[i, j] >= UNCHANGED_IOU and same[i, j]
                source[i] = ACCEPTED if alone else CORRECTED
    return list(zip(source, origin, strict=True)), [exported[j] for j in sorted(gone)]


def rest_of_unlabeled(
    records: Sequence[dict[str, Any]],
    labelled: Collection[int],
    merged: dict[str, Any],
    labeled_root: str,
    image_root: str,
) -> dict[str, Any]:
    """The json of the unlabelled images that are left, for ``UnlabeledImageDataset``.

    Args:
        records: of :func:`.label_in_parts`, all unlabelled images.
        labelled: their indices that have become labelled.
        merged: content of the labelled file, which may have images of an earlier import; its
            categories are taken.
        labeled_root: folder that its file names are relative to.
        image_root: folder that the file names are relative to.
    """
    # An image of the labelled file is known by its name there, however it came into it.
    names = {image_file_name(image) for image in merged['images']}
    images = [
        dict(
            id=record['img_id'],
            file_name=relative_path(record['path'], image_root or '.'),
            height=record['height'],
            width=record['width'],
        )
        for record in records
        if record['image'] not in labelled
        and relative_path(record['path'], labeled_root) not in names
    ]
    return dict(images=images, annotations=[], categories=merged['categories'])


def _image_entry(
    place: dict[str, Any], image_id: int, by_name: bool, by_url: bool
) -> dict[str, Any]:
    """An entry of ``images`` that names its file as the others of the labelled file do."""
    entry: dict[str, Any] = dict(id=image_id, height=place['height'], width=place['width'])
    if by_name:
        entry['file_name'] = place['labeled_file_name']
    if by_url:
        # The host's LVISV1Dataset reads the file name from the end of this address.
        entry['coco_url'] = LVIS_URL + place['labeled_file_name']
    return entry


def _area(found: ReviewedObject) -> float:
    if found.rle is None:
        return found.bbox[2] * found.bbox[3]
    return float(coco_mask.area(found.rle))


def _overlaps(reviewed: Sequence[ReviewedObject], exported: Sequence[dict[str, Any]]) -> np.ndarray:
    """(R, E) IoU of masks, of boxes where there are no masks."""
    if reviewed[0].rle is not None and 'rle' in exported[0]:
        first: list[Any] = [found.rle for found in reviewed]
        second: list[Any] = [entry['rle'] for entry in exported]
    else:
        first = np.array([found.bbox for found in reviewed], dtype=np.float64)  # type: ignore
        second = np.array([entry['bbox'] for entry in exported], dtype=np.float64)  # type: ignore
    return np.asarray(coco_mask.iou(first, second, [0] * len(exported)))
