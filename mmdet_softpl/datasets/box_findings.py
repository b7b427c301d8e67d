"""Boxes that are not where their masks are; [x, y, width, height] in pixels, as in the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pycocotools import mask as coco_mask

from mmdet_softpl.messages import some_of

from .annotation_file import declared_size
from .config_sets import FOLDER, UNLABELLED, ConfiguredSet
from .findings import ERROR, WARNING, Finding
from .host_requirements import is_dropped
from .review_masks import checked_rle

# Below it a box has another place or size than its mask, whatever the rounding.
_SAME_IOU = 0.5
# Of a small object rounding alone takes the IoU below it.
_ROUNDING = 2.0
Box = Sequence[float]


def box_findings(configured: ConfiguredSet, part: dict[str, Any]) -> list[Finding]:
    """Boxes against the masks of the same objects, or against the image where there is no mask.

    The host learns and evaluates boxes and masks apart, and says nothing where they differ.

    Args:
        configured: the set.
        part: what of its json is usable.

    Returns:
        The findings: an error where most boxes are wrong.
    """
    if configured.kind == FOLDER or configured.role == UNLABELLED:
        return []
    sizes = {
        i['id']: (declared_size(i.get('width')), declared_size(i.get('height')))
        for i in part['images']
    }
    wrong, corners, blank, compared = [], 0, [], 0
    for annotation in part['annotations']:
        box, size = annotation['bbox'], sizes[annotation['image_id']]
        # Of what the host leaves out there is a finding already.
        if annotation.get('iscrowd') or is_dropped(annotation, size):
            continue
        mask = mask_box(annotation.get('segmentation'), *size)
        if mask is not None and not (mask[2] > 0 and mask[3] > 0):
            blank.append(annotation['id'])
            continue
        compared += 1
        if mask is not None and _apart(box, mask):
            wrong.append(annotation['id'])
            corners += not _apart(_from_corners(box), mask)
        elif mask is None and _reaches_out(box, size):
            wrong.append(annotation['id'])
            corners += not _reaches_out(_from_corners(box), size)
    findings = []

    def note(severity: str, kind: str, ids: list, total: int, remedy: str) -> None:
        if ids:
            detail = (
                f'{configured.ann_file}: {len(ids)} of {total} annotations: id {some_of(ids, 5)}'
            )
            findings.append(Finding(severity, configured.name, kind, detail, remedy, len(ids)))

    note(
        ERROR if 2 * len(wrong) > compared else WARNING,
        'box that is not where its object is',
        wrong,
        compared,
        'these look like [x1, y1, x2, y2], but a bbox is [x, y, width, height] in pixels: write '
        'x2 - x1 and y2 - y1'
        if 2 * corners > len(wrong)
        else 'a bbox is [x, y, width, height] in pixels: write that of the mask, or correct the '
        'mask',
    )
    note(
        WARNING,
        'mask that covers no pixel',
        blank,
        len(part['annotations']),
        'mmdet leaves such an object out of the training, and in an evaluation it can never be '
        'found: draw the mask, or remove the annotation',
    )
    return findings


def mask_box(segmentation: Any, width: int, height: int) -> Box | None:
    """Hull of a mask as [x, y, width, height]; None where there is no mask that can be read.

    Args:
        segmentation: polygons of finite numbers, or an RLE.
        width, height: of the image.
    """
    if isinstance(segmentation, dict):
        if not (width and height):
            return None
        try:
            return coco_mask.toBbox(checked_rle(segmentation, height, width)).tolist()
        except ValueError:
            return None
    if not segmentation:
        return None
    x1, y1 = min(min(p[::2]) for p in segmentation), min(min(p[1::2]) for p in segmentation)
    x2, y2 = max(max(p[::2]) for p in segmentation), max(max(p[1::2]) for p in segmentation)
    return [x1, y1, x2 - x1, y2 - y1]


def _from_corners(box: Box) -> Box:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _apart(box: Box, mask: Box) -> bool:
    """Whether a box has little to do with the hull of the mask."""
    ends = [(b[0], b[1], b[0] + b[2], b[1] + b[3]) for b in (box, mask)]
    if max(abs(a - b) for a, b in zip(*ends, strict=True)) <= _ROUNDING:
        return False
    width = min(e[2] for e in ends) - max(e[0] for e in ends)
    height = min(e[3] for e in ends) - max(e[1] for e in ends)
    both = max(width, 0) * max(height, 0)
    return both < _SAME_IOU * (box[2] * box[3] + mask[2] * mask[3] - both)


def _reaches_out(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box reaches out of its image, where its size is known."""
    return all(size) and any(
        box[i] + box[i + 2] > length + _ROUNDING for i, length in enumerate(size)
    )
