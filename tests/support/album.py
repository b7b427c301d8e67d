"""Images whose colours tell which object a pixel belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmdet_softpl.datasets.rare_copy_paste_dataset import RareCopyPasteDataset

CLASSES = ('frequent', 'common', 'rare')
# Level of the blue channel of a class; green is the object's own.
BLUE = (80, 160, 240)
LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
]


class Album:
    """A COCO json with its images; objects are rectangles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        categories = [dict(id=10 * (i + 1), name=name) for i, name in enumerate(CLASSES)]
        self.content: dict[str, Any] = dict(images=[], annotations=[], categories=categories)

    def add(self, width: int, height: int, *objects: tuple[int, int, int, int, int]) -> None:
        """An image with objects (label, x, y, w, h)."""
        number = len(self.content['images']) + 1
        pixels = np.full((height, width, 3), 20, dtype=np.uint8)
        image = dict(id=number, file_name=f'{number}.png', width=width, height=height)
        self.content['images'].append(image)
        for label, x, y, w, h in objects:
            pixels[y : y + h, x : x + w, 0] = BLUE[label]
            self.content['annotations'].append(
                dict(
                    id=len(self.content['annotations']) + 1,
                    image_id=number,
                    category_id=10 * (label + 1),
                    # A little larger than the mask, as people draw them.
                    bbox=[x - 0.25, y - 0.25, w + 0.5, h + 0.5],
                    area=w * h,
                    iscrowd=0,
                    segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )
        cv2.imwrite(str(self.folder / image['file_name']), pixels)

    def config(self, **changes: Any) -> dict[str, Any]:
        path = self.folder / 'labelled.json'
        path.write_text(json.dumps(self.content))
        return (
            dict(
                type='mmdet.CocoDataset',
                ann_file=str(path),
                data_prefix=dict(img=str(self.folder)),
                metainfo=dict(classes=CLASSES),
                pipeline=LOAD,
            )
            | changes
        )

    def dataset(self, **changes: Any) -> RareCopyPasteDataset:
        return RareCopyPasteDataset([self.config()], **changes)
