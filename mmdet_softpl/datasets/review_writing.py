"""Files that take pseudo-labels to annotation tools.

COCO json is read by CVAT and FiftyOne: both take polygons and RLE, CVAT makes a shape of each
polygon and ignores category id 0, so ids start at 1. Label Studio reads tasks with predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import quoteattr

from .review_masks import decode_mask, encode_brush, mask_to_polygons

COMPLETE, UNFINISHED = 'every object is outlined', 'not finished'
_COLOURS = ('#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#F0E442')


def coco_export(manifest: dict[str, Any], masks: str) -> dict[str, Any]:
    """A COCO json of the chosen images.

    Args:
        manifest: of the export.
        masks: ``'polygon'``, whose IoU with the mask is at least 0.98 (what polygons cannot
            describe so well stays an RLE), or ``'rle'``.

    Returns:
        The content of the file; annotations carry their ``score``.
    """
    ids = {name: i + 1 for i, name in enumerate(manifest['classes'])}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, image in enumerate(manifest['images'], 1):
        images.append(
            dict(
                id=image_id,
                file_name=image['file'],
                height=image['height'],
                width=image['width'],
            )
        )
        for entry in image['objects']:
            segmentation: Any = []
            area = entry['bbox'][2] * entry['bbox'][3]
            if 'rle' in entry:
                mask = decode_mask(entry['rle'])
                polygons = mask_to_polygons(mask) if masks == 'polygon' else None
                segmentation, area = polygons or entry['rle'], int(mask.sum())
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=ids[entry['class']],
                    bbox=entry['bbox'],
                    area=area,
                    iscrowd=0,
                    segmentation=segmentation,
                    score=entry['confidence'],
                )
            )
    categories = [dict(id=i, name=name, supercategory='') for name, i in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def label_studio_tasks(manifest: dict[str, Any], image_url: str) -> list[dict[str, Any]]:
    """Label Studio tasks whose predictions are the pseudo-labels of the chosen images.

    Args:
        manifest: of the export.
        image_url: what stands before the file name of an image; of the web, the name is quoted.
    """
    # Label Studio takes keys of a cloud storage (s3://bucket/key) as they are.
    of_web = urlsplit(image_url).scheme in ('', 'http', 'https')
    quoted = quote if of_web else str
    tasks = []
    for image in manifest['images']:
        results = []
        for number, entry in enumerate(image['objects']):
            height, width = image['height'], image['width']
            if 'rle' in entry:
                kind = 'brushlabels'
                value: dict[str, Any] = dict(
                    format='rle', rle=encode_brush(decode_mask(entry['rle']))
                )
            else:
                kind = 'rectanglelabels'
                x, y, w, h = entry['bbox']
                value = dict(
                    x=100 * x / width, y=100 * y / height, width=100 * w / width,
                    height=100 * h / height, rotation=0,
                )  # fmt: skip
            results.append(
                dict(
                    id=f'label{number}',
                    type=kind,
                    from_name='label',
                    to_name='image',
                    original_width=width,
                    original_height=height,
                    image_rotation=0,
                    score=entry['confidence'],
                    value={**value, kind: [entry['class']]},
                )
            )
        best = max((entry['confidence'] for entry in image['objects']), default=0.0)
        tasks.append(
            dict(
                data=dict(image=image_url + quoted(image['file']), file=image['file']),
                predictions=[
                    dict(
                        model_version=manifest['checkpoint_sha256'][:12], score=best, result=results
                    )
                ],
            )
        )
    return tasks


def label_studio_config(classes: Sequence[str], masks: bool) -> str:
    """The labeling interface (XML) that the tasks belong to."""
    tag = 'BrushLabels' if masks else 'RectangleLabels'
    labels = '\n'.join(
        f'    <Label value={quoteattr(name)} background="{_COLOURS[i % len(_COLOURS)]}"/>'
        for i, name in enumerate(classes)
    )
    return (
        '<View>\n'
        '  <Header value="Correct the labels, outline what is missing, remove what is wrong"/>\n'
        '  <Image name="image" value="$image" zoom="true"/>\n'
        '  <Filter toName="label" name="filter"/>\n'
        f'  <{tag} name="label" toName="image">\n{labels}\n  </{tag}>\n'
        '  <Choices name="state" toName="image" choice="single" showInLine="true">\n'
        f'    <Choice value="{COMPLETE}"/>\n    <Choice value="{UNFINISHED}"/>\n'
        '  </Choices>\n'
        '</View>\n'
    )
