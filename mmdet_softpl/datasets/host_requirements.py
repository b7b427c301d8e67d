"""What the host's data sets ask of a json: keys that they read without asking, what they drop."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmdet_softpl.messages import some_of

from .annotation_file import declared_size, image_file_name
from .config_sets import FOLDER, LABELLED, LVIS_V05, LVIS_V1, UNLABELLED, ConfiguredSet
from .findings import ERROR, WARNING, Finding
from .review_masks import checked_rle

# COCO has 1 in 100; whoever has many more did not mean crowds.
_USUAL_CROWDS = 0.05
_COCO_SERVER = 'http://images.cocodataset.org/'


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


def host_findings(configured: ConfiguredSet, part: dict[str, Any]) -> list[Finding]:
    """Keys that the host's data set reads without asking, and what it drops in silence.

    Args:
        configured: the set.
        part: what of its json is usable.
    """
    name, path, findings = configured.name, configured.ann_file, []

    def note(severity: str, kind: str, items: list, of: str, remedy: str) -> None:
        if items:
            total = len(part['images' if of == 'images' else 'annotations'])
            detail = f'{path}: {len(items)} of {total} {of}: id {some_of(items, 5)}'
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
    sizes = {
        i['id']: (declared_size(i.get('width')), declared_size(i.get('height'))) for i in images
    }
    note(
        ERROR,
        'image without `height` or `width`',
        [image_id for image_id, size in sizes.items() if not all(size)],
        'images',
        'write the size in pixels into the json, as numbers without quotation marks',
    )
    if configured.role == UNLABELLED:
        return findings
    note(
        ERROR,
        'annotation without `area`',
        [a['id'] for a in annotations if not isinstance(a.get('area'), (int, float))],
        'annotations',
        'write the area in pixels, a number without quotation marks: of the mask, or width x '
        'height of the box',
    )
    note(
        ERROR if configured.with_masks else WARNING,
        'annotation without `segmentation`',
        [a['id'] for a in annotations if not a.get('segmentation')],
        'annotations',
        'instance segmentation needs a polygon or RLE of every object',
    )
    note(
        ERROR if configured.with_masks else WARNING,
        'mask that does not fit its image',
        [
            f'{a["id"]} ({problem})'
            for a in annotations
            if (problem := _mask_problem(a.get('segmentation'), sizes[a['image_id']]))
        ],
        'annotations',
        'the `size` of an RLE is [height, width], and its `counts` add up to all pixels; write the '
        'mask again, or correct the size of the image in the json',
    )
    ignored = [a['id'] for a in annotations if a.get('ignore')]
    note(
        ERROR if ignored and len(ignored) == len(annotations) else WARNING,
        'annotation with `ignore`',
        ignored,
        'annotations',
        'mmdet leaves them out; set `ignore` to 0 where the object counts',
    )
    dropped = [
        a['id'] for a in annotations if not a.get('ignore') and is_dropped(a, sizes[a['image_id']])
    ]
    note(
        ERROR if dropped and len(dropped) == len(annotations) else WARNING,
        'annotation that mmdet leaves out',
        dropped,
        'annotations',
        'a bbox is [x, y, width, height] in pixels (not shares of the image), at least 1 pixel '
        'wide and high and inside its image, with an area above 0; correct or remove them',
    )
    return findings + _crowd_findings(configured, part)


def _crowd_findings(configured: ConfiguredSet, part: dict[str, Any]) -> list[Finding]:
    """Annotations that the host ignores, in training and in the evaluation."""
    names = {c['id']: c['name'] for c in part['categories']}
    if isinstance(configured.classes, tuple):
        names = {i: name for i, name in names.items() if name in configured.classes}
    # What `gate` adds is meant to be ignored.
    used = [
        a for a in part['annotations'] if a['category_id'] in names and a.get('source') != 'teacher'
    ]
    crowds = [a for a in used if a.get('iscrowd')]
    if not crowds:
        return []
    objects = Counter(a['category_id'] for a in used if not a.get('iscrowd'))
    ignored = Counter(a['category_id'] for a in crowds if not objects[a['category_id']])
    lost = [f'{names[i]} ({count})' for i, count in ignored.items()]
    detail = f'{configured.ann_file}: `iscrowd` is 1 in {len(crowds)} of {len(used)} annotations'
    if lost:
        detail += f'; {len(lost)} classes have nothing else: {some_of(lost)}'
    elif len(crowds) <= _USUAL_CROWDS * len(used):
        return []
    # A class without a validation image has no AP, but does not stop anything.
    stops = lost and (configured.role == LABELLED or len(crowds) == len(used))
    remedy = (
        'mmdet ignores crowds; CVAT writes 1 for every mask: set `iscrowd` to 0 where the '
        'annotation is of a single object'
    )
    severity = ERROR if stops else WARNING
    kind = 'annotation that is a crowd'
    return [Finding(severity, configured.name, kind, detail, remedy, len(crowds))]


def _mask_problem(segmentation: Any, size: tuple[int, int]) -> str:
    """Why the host could not decode an RLE; empty for other masks and sound ones."""
    width, height = size
    if not isinstance(segmentation, dict) or not (width and height):
        return ''
    try:
        checked_rle(segmentation, height, width)
    except ValueError as error:
        return str(error)
    return ''


def is_dropped(annotation: dict[str, Any], size: tuple[int, int]) -> bool:
    """As ``CocoDataset.parse_data_info``, but for ``ignore``.

    Args:
        annotation: with a usable ``bbox``.
        size: (width, height) of its image, 0 where the file does not say.
    """
    x, y, width, height = annotation['bbox']
    image_width, image_height = size
    if not (image_width and image_height):
        return False
    inside_x = min(x + width, image_width) - max(x, 0)
    inside_y = min(y + height, image_height) - max(y, 0)
    area = annotation.get('area', 1)
    outside = inside_x <= 0 or inside_y <= 0
    return outside or width < 1 or height < 1 or (isinstance(area, (int, float)) and area <= 0)
