"""What one data set of a config holds.

Shape letters: C classes in label order, A annotations.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmdet_softpl.messages import some_of

from .annotation_checks import AnnotationSummary, check_annotations
from .annotation_file import AnnotationError, declared_size, load_annotation_file
from .annotation_findings import finding_of_message, summarise
from .box_findings import box_findings
from .class_statistics import ClassStatistics, class_statistics
from .config_sets import (
    FOLDER,
    LABELLED,
    LVIS_V05,
    LVIS_V1,
    OTHER,
    ConfiguredSet,
)
from .findings import ERROR, WARNING, Finding
from .gated_labels import gated_images, taken_part
from .host_requirements import host_file_name, host_findings
from .unlabeled_image_dataset import IMAGE_EXTENSIONS, find_images
from .usable_part import usable_part


@dataclass(frozen=True)
class SetImage:
    """An image of a set.

    Attributes:
        path: where the host will look for it.
        height, width: in pixels as the file declares them; 0 where it does not, and for folders.
        image_id: of the json, None for a folder.
        has_rle: whether a mask of it is an RLE, which fits one size alone.
    """

    path: str
    height: int = 0
    width: int = 0
    image_id: Any = None
    has_rle: bool = False


@dataclass(frozen=True)
class SetContents:
    """What a configured set holds.

    Attributes:
        configured: the set.
        images: all that the file or the folder lists, on the disk or not.
        used_images: images that a training takes, after ``filter_cfg``, before repeats.
        epoch_images: the same with the repeats of ``ClassBalancedDataset`` and ``RepeatDataset``.
        num_instances: A, annotations that can be counted.
        statistics: of the C classes, None where the file has no usable categories.
        summary: of the file, None likewise.
        repeat_factors: class name -> repeat factor >= 1 of ``ClassBalancedDataset``; empty
            without one.
        without_annotation: paths of labelled images that training leaves out, because the file
            has no annotation of them.
        findings: what is wrong with the set's file.
    """

    configured: ConfiguredSet
    images: tuple[SetImage, ...] = ()
    used_images: int = 0
    epoch_images: int = 0
    num_instances: int = 0
    statistics: ClassStatistics | None = None
    summary: AnnotationSummary | None = None
    repeat_factors: Mapping[str, float] = field(default_factory=dict)
    without_annotation: frozenset[str] = frozenset()
    findings: tuple[Finding, ...] = ()


def read_set(configured: ConfiguredSet) -> SetContents:
    """Read a set's json, or list its folder. No image is opened.

    Args:
        configured: the set.

    Returns:
        Its contents; whatever is wrong is a finding.
    """
    empty = SetContents(configured)
    if configured.kind == OTHER:
        return _with(
            empty,
            Finding(
                WARNING,
                configured.name,
                'unknown type of data set',
                f'{configured.key} is a {configured.type}, which is not read here',
                'nothing, if the type is yours; otherwise correct `type`, or import its module '
                'with `custom_imports`',
            ),
        )
    if not configured.local:
        return _with(
            empty,
            Finding(
                WARNING,
                configured.name,
                'not on this disk',
                f'{configured.key} reads from another backend',
                'copy the data here to have it looked at',
            ),
        )
    if configured.kind == FOLDER and not configured.ann_file:
        return _read_folder(configured)
    return _read_json(configured)


def repeat_factors(
    image_classes: Iterable[set[str]], oversample_thr: float
) -> tuple[dict[str, float], int]:
    """Repeats of the host's ``ClassBalancedDataset`` (LVIS, arXiv 1908.03195, appendix B).

    Args:
        image_classes: the classes of every image.
        oversample_thr: share of the images below which a class is repeated, > 0.

    Returns:
        Class -> r_c = max(1, sqrt(t / f_c)), and the images of an epoch: the sum over images of
        ceil(max r_c).
    """
    sets = list(image_classes)
    counts: defaultdict[str, int] = defaultdict(int)
    for classes in sets:
        for name in classes:
            counts[name] += 1
    factors = {
        name: max(1.0, math.sqrt(oversample_thr / (count / len(sets))))
        for name, count in counts.items()
    }
    total = sum(math.ceil(max((factors[n] for n in classes), default=1.0)) for classes in sets)
    return factors, total


def _with(contents: SetContents, *findings: Finding) -> SetContents:
    return replace(contents, findings=(*contents.findings, *findings))


def _read_folder(configured: ConfiguredSet) -> SetContents:
    folder = configured.image_root
    empty = SetContents(configured)
    if not os.path.isdir(folder):
        what = 'is a file' if os.path.isfile(folder) else 'does not exist'
        return _with(
            empty,
            Finding(
                ERROR,
                configured.name,
                'missing folder',
                f'{folder!r} {what} ({configured.key})',
                f'{_where_it_is_set(configured)}, or make the folder',
            ),
        )
    images = tuple(SetImage(path) for path in find_images(folder))
    contents = replace(
        empty,
        images=images,
        used_images=len(images),
        epoch_images=len(images) * configured.times,
    )
    if images:
        return contents
    return _with(
        contents,
        Finding(
            ERROR,
            configured.name,
            'no image',
            f'{folder!r} has no image (looked for {", ".join(IMAGE_EXTENSIONS)}, recursively)',
            f'{_where_it_is_set(configured)}, or fetch the images',
        ),
    )


def _where_it_is_set(configured: ConfiguredSet) -> str:
    if configured.key.startswith('--'):
        return f'correct {configured.key}'
    return 'correct `data_root` or `data_prefix`'


def _read_json(configured: ConfiguredSet) -> SetContents:
    path, name = configured.ann_file, configured.name
    nothing = SetContents(configured)
    if not path:
        remedy = 'set `ann_file`'
        finding = Finding(ERROR, name, 'no file', f'{configured.key} has no `ann_file`', remedy)
        return _with(nothing, finding)
    try:
        data = load_annotation_file(path)
    except (AnnotationError, OSError) as error:
        return _with(nothing, finding_of_message(ERROR, name, 'unusable file', str(error)))

    findings: list[Finding] = []
    if configured.kind in (LVIS_V1, LVIS_V05) and importlib.util.find_spec('lvis') is None:
        detail = f'{configured.type} needs the package lvis, which is not installed'
        findings.append(Finding(ERROR, name, 'missing package', detail, 'pip install lvis'))
    if configured.indices is not None:
        findings.append(
            Finding(
                WARNING,
                name,
                'part of a set',
                f'{configured.key} takes indices={str(configured.indices)[:60]}; the figures here '
                'are of the whole set',
                'nothing',
            )
        )
    summary = summarise(configured, data, findings)
    part, _ = usable_part(data)
    findings += host_findings(configured, part) + box_findings(configured, part)
    with_rle = {
        a['image_id'] for a in part['annotations'] if isinstance(a.get('segmentation'), dict)
    }
    images = tuple(
        SetImage(
            os.path.join(configured.image_root, file_name),
            declared_size(image.get('height')),
            declared_size(image.get('width')),
            image['id'],
            image['id'] in with_rle,
        )
        for image in part['images']
        if (file_name := host_file_name(configured.kind, image)) is not None
    )
    names = {c['id']: c['name'] for c in part['categories']}
    wanted = None if summary is None else set(summary.classes)
    classes_of: defaultdict[Any, set[str]] = defaultdict(set)
    for annotation in part['annotations']:
        class_name = names[annotation['category_id']]
        if wanted is None or class_name in wanted:
            classes_of[annotation['image_id']].add(class_name)
    taken = _taken_part(configured, data, findings)
    taken_ids = {image['id'] for image in taken['images']}
    used = [
        image
        for image in images
        if image.image_id in taken_ids
        and (image.image_id in classes_of or not configured.filter_empty)
        and (min(image.height, image.width) >= configured.min_size or _is_open(configured, image))
    ]
    small = [
        f'{image.path} ({image.width} x {image.height})'
        for image in images
        if min(image.height, image.width) < configured.min_size and not _is_open(configured, image)
    ]
    if small and used:
        findings.append(
            Finding(
                WARNING,
                name,
                'image below `min_size`',
                f'{path}: {len(small)} of {len(images)} images: {some_of(small, 5)}; '
                f'filter_cfg.min_size={configured.min_size} leaves them out, with their objects',
                'nothing, or a lower `min_size` if they are what you look for',
                len(small),
            )
        )
    factors: dict[str, float] = {}
    epoch = len(used)
    if configured.oversample_thr is not None and used:
        own = (classes_of.get(image.image_id, set()) for image in used)
        factors, epoch = repeat_factors(own, configured.oversample_thr)
    if images and not used:
        detail = (
            f'{path}: none of {len(images)} images is left after filter_cfg (filter_empty_gt='
            f'{configured.filter_empty}, min_size={configured.min_size})'
        )
        remedy = 'give the file that has the annotations, or the classes that it defines'
        findings.append(Finding(ERROR, name, 'no image is used', detail, remedy))
    annotated = {annotation['image_id'] for annotation in part['annotations']}
    empty = [i.path for i in images if i.image_id not in annotated]
    if not (configured.filter_empty and configured.role == LABELLED and used):
        empty = []
    # A federated file says nothing about most classes of any image.
    if empty and not (summary is not None and summary.federated):
        findings.append(
            Finding(
                WARNING,
                name,
                'image without an annotation',
                f'{path}: {len(empty)} of {len(images)} images: {some_of(empty, 5)}; '
                'filter_cfg.filter_empty_gt=True leaves them out',
                'if they are not labelled yet, they may be among the unlabelled images; if they '
                'truly show no object, set `filter_empty_gt` to False and they teach what '
                'background looks like',
                len(empty),
            )
        )
    statistics = None if summary is None else class_statistics(summary)
    if summary is not None and taken is not data:
        statistics = class_statistics(check_annotations(path, classes=summary.classes, data=taken))
    return SetContents(
        configured=configured,
        images=images,
        used_images=len(used),
        epoch_images=epoch * configured.times,
        num_instances=0 if statistics is None else int(statistics.instance_counts.sum()),
        statistics=statistics,
        summary=summary,
        repeat_factors=factors,
        without_annotation=frozenset(empty),
        findings=tuple(findings),
    )


def _taken_part(
    configured: ConfiguredSet, data: dict[str, Any], findings: list[Finding]
) -> dict[str, Any]:
    """What a ``GeneratedImageDataset`` takes of its file; of any other set all."""
    if configured.gated is None:
        return data
    classes = configured.classes if isinstance(configured.classes, tuple) else None
    try:
        ids, _ = gated_images(configured.ann_file, data, classes, *configured.gated)
    except (ValueError, OSError) as error:
        findings.append(finding_of_message(ERROR, configured.name, 'generated images', str(error)))
        return data
    return taken_part(data, ids)


def _is_open(configured: ConfiguredSet, image: SetImage) -> bool:
    """Whether the size is known only when the image is opened, as the unlabelled set does."""
    return configured.kind == FOLDER and not (image.height and image.width)
