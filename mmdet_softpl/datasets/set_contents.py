"""What one data set of a config holds, and what is wrong with its file.

Shape letters: C classes in label order, A annotations.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .annotation_checks import AnnotationSummary, check_annotations
from .annotation_file import AnnotationError, image_file_name, load_annotation_file
from .class_statistics import ClassStatistics, class_statistics
from .config_sets import (
    FOLDER,
    LABELLED,
    LVIS_V05,
    LVIS_V1,
    OTHER,
    UNLABELLED,
    VALIDATION,
    ConfiguredSet,
)
from .findings import ERROR, WARNING, Finding, examples
from .unlabeled_image_dataset import IMAGE_EXTENSIONS, find_images
from .usable_part import usable_part

NO_VALIDATION_IMAGE = 'class without a validation image'
_COCO_SERVER = 'http://images.cocodataset.org/'


@dataclass(frozen=True)
class SetImage:
    """An image of a set.

    Attributes:
        path: where the host will look for it.
        height, width: in pixels as the file declares them; 0 where it does not, and for folders.
        image_id: of the json, None for a folder.
    """

    path: str
    height: int = 0
    width: int = 0
    image_id: Any = None


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


def host_file_name(kind: str, image: dict[str, Any]) -> str | None:
    """File name of an image entry as the host's data set of this kind forms it.

    Args:
        kind: of :class:`ConfiguredSet`.
        image: entry of ``images``.

    Returns:
        The name relative to the image folder, None where the key that it needs is missing.
    """
    if kind == LVIS_V1:
        url = image.get('coco_url')
        return url.replace(_COCO_SERVER, '') if isinstance(url, str) else None
    if kind == FOLDER:
        return image_file_name(image)
    name = image.get('file_name')
    if not isinstance(name, str):
        return None
    return name[-16:] if kind == LVIS_V05 and name.startswith('COCO') else name


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
                'correct `data_root` or `data_prefix`, or make the folder',
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
            'correct `data_root` or `data_prefix`, or fetch the images',
        ),
    )


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
        return _with(nothing, _of_file(ERROR, name, 'unusable file', str(error)))

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
    summary = _summarise(configured, data, findings)
    part, _ = usable_part(data)
    findings += _host_needs(configured, part)
    images = tuple(
        SetImage(
            os.path.join(configured.image_root, file_name),
            _size(image.get('height')),
            _size(image.get('width')),
            image['id'],
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
    used = [
        image
        for image in images
        if (image.image_id in classes_of or not configured.filter_empty)
        and (min(image.height, image.width) >= configured.min_size or _is_open(configured, image))
    ]
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
                f'{path}: {len(empty)} of {len(images)} images: {examples(empty, 5)}; '
                'filter_cfg.filter_empty_gt=True leaves them out',
                'if they are not labelled yet, they may be among the unlabelled images; if they '
                'truly show no object, set `filter_empty_gt` to False and they teach what '
                'background looks like',
                len(empty),
            )
        )
    statistics = None if summary is None else class_statistics(summary)
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


def _is_open(configured: ConfiguredSet, image: SetImage) -> bool:
    """Whether the size is known only when the image is opened, as the unlabelled set does."""
    return configured.kind == FOLDER and not (image.height and image.width)


def _size(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0


def _of_file(severity: str, name: str, kind: str, text: str) -> Finding:
    """A finding from a message of the annotation checks, whose last sentence is the remedy."""
    detail, _, remedy = text.rstrip('.').rpartition('. ')
    return Finding(severity, name, kind, detail or text, remedy if detail else 'correct the file')


def _summarise(
    configured: ConfiguredSet, data: dict[str, Any], findings: list[Finding]
) -> AnnotationSummary | None:
    """The summary of the file, or of its usable part, after noting what is wrong with it."""
    path, name, role = configured.ann_file, configured.name, configured.role
    labelled = role == LABELLED
    # Nothing reads the categories and annotations of unlabelled images.
    severity = WARNING if role == UNLABELLED else ERROR
    classes = None if role == UNLABELLED else configured.classes
    if role not in (LABELLED, UNLABELLED) and not data.get('annotations'):
        detail = f'{path}: there is nothing to evaluate against'
        findings.append(
            Finding(ERROR, name, 'no annotation', detail, 'give a json with annotations')
        )
    if role == UNLABELLED and not data['categories']:
        if not data['images']:
            detail = f'{path}: key `images` is an empty list'
            findings.append(Finding(ERROR, name, 'no image', detail, 'list the images there'))
        return None
    try:
        summary = check_annotations(path, classes=classes, require_annotations=labelled, data=data)
    except AnnotationError as error:
        for problem in error.problems:
            several = problem != str(error)
            kind = problem.partition(' (')[0] if several else 'unusable file'
            text = f'{path}: {problem}' if several else problem
            findings.append(_of_file(severity, name, kind, text))
        part, kept = usable_part(data, classes)
        try:
            return check_annotations(path, classes=kept, require_annotations=False, data=part)
        except AnnotationError:
            return None
    for warning in summary.warnings:
        findings.append(_of_file(WARNING, name, 'doubtful file', f'{path}: {warning}'))
    if labelled and classes is not None:
        findings += _left_out_classes(configured, data, classes)
    empty = [c for c, n in zip(summary.classes, summary.image_counts, strict=True) if n == 0]
    if role == VALIDATION and data.get('annotations') and empty:
        findings.append(
            Finding(
                WARNING,
                name,
                NO_VALIDATION_IMAGE,
                f'{path}: {len(empty)} of {len(summary.classes)} classes: {examples(empty)}',
                'add images of them: they have no AP (-1), and the mean leaves them out',
                len(empty),
            )
        )
    return summary


def _left_out_classes(
    configured: ConfiguredSet, data: dict[str, Any], classes: Sequence[str]
) -> list[Finding]:
    """Categories of a labelled file that ``metainfo.classes`` does not name."""
    others = {c['id']: c['name'] for c in data['categories'] if c['name'] not in classes}
    counts = Counter(a['category_id'] for a in data['annotations'])
    shown = [f'{name} ({counts[i]} annotations)' for i, name in others.items() if counts[i]]
    if not shown:
        return []
    return [
        Finding(
            WARNING,
            configured.name,
            'class that is not trained',
            f'{configured.ann_file}: {len(shown)} of {len(data["categories"])} categories are not '
            f'in `metainfo.classes`: {examples(shown)}',
            'add them to `classes`, and to num_classes of the heads; otherwise their objects are '
            'taught as background',
            len(shown),
        )
    ]


def _host_needs(configured: ConfiguredSet, part: dict[str, Any]) -> list[Finding]:
    """Keys that the host's data set reads without asking, and what it drops in silence."""
    name, path, findings = configured.name, configured.ann_file, []

    def note(severity: str, kind: str, items: list, of: str, remedy: str) -> None:
        if items:
            total = len(part['images' if of == 'images' else 'annotations'])
            detail = f'{path}: {len(items)} of {total} {of}: id {examples(items, 5)}'
            findings.append(Finding(severity, name, kind, detail, remedy, len(items)))

    file_key = '`coco_url`' if configured.kind == LVIS_V1 else '`file_name`'
    images, annotations = part['images'], part['annotations']
    note(
        ERROR,
        f'image without {file_key}',
        [i['id'] for i in images if host_file_name(configured.kind, i) is None],
        'images',
        f'give every image the key; {configured.type} finds the files by it',
    )
    if configured.kind == FOLDER:
        return findings
    sizes = {i['id']: (_size(i.get('width')), _size(i.get('height'))) for i in images}
    note(
        ERROR,
        'image without `height` or `width`',
        [image_id for image_id, size in sizes.items() if not all(size)],
        'images',
        'write the size in pixels into the json',
    )
    if configured.role == UNLABELLED:
        return findings
    note(
        ERROR,
        'annotation without `area`',
        [a['id'] for a in annotations if not isinstance(a.get('area'), (int, float))],
        'annotations',
        'write the area in pixels: of the mask, or width x height of the box',
    )
    note(
        ERROR if configured.with_masks else WARNING,
        'annotation without `segmentation`',
        [a['id'] for a in annotations if not a.get('segmentation')],
        'annotations',
        'instance segmentation needs a polygon or RLE of every object',
    )
    dropped = [a['id'] for a in annotations if _is_dropped(a, sizes[a['image_id']])]
    note(
        ERROR if dropped and len(dropped) == len(annotations) else WARNING,
        'annotation that the host leaves out',
        dropped,
        'annotations',
        'a bbox is [x, y, width, height] in pixels (not shares of the image), at least 1 pixel '
        'wide and high and inside its image, with an area above 0; correct or remove them',
    )
    return findings


def _is_dropped(annotation: dict[str, Any], size: tuple[int, int]) -> bool:
    """As ``CocoDataset.parse_data_info``."""
    x, y, width, height = annotation['bbox']
    image_width, image_height = size
    if not (image_width and image_height):
        return False
    inside_x = min(x + width, image_width) - max(x, 0)
    inside_y = min(y + height, image_height) - max(y, 0)
    area = annotation.get('area', 1)
    outside = inside_x <= 0 or inside_y <= 0
    return outside or width < 1 or height < 1 or (isinstance(area, (int, float)) and area <= 0)
