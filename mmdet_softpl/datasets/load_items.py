"""Images of a data set for a network to look at; one that cannot be read is named."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
from mmengine.dataset import BaseDataset

from .image_scan import scan_image


def load_items(dataset: BaseDataset, indices: Iterable[int]) -> list[dict[str, Any]]:
    """What a data set gives for some of its images.

    Args:
        dataset: With ``test_mode=True``: others replace what they cannot load.
        indices: Of the images.

    Raises:
        ValueError: A file is missing or no image; the message names it.
    """
    items = []
    for index in indices:
        try:
            items.append(dataset[int(index)])
        # mmcv asserts that OpenCV gave an image.
        except (AssertionError, OSError, cv2.error) as error:
            path = dataset.get_data_info(int(index)).get('img_path')
            if path is None or scan_image(path).readable:
                raise  # A transform's doing.
            raise ValueError(
                f'{path}: the image cannot be read; replace the file, or take it out of '
                f'{getattr(dataset, "ann_file", "") or "its folder"}. `python -m mmdet_softpl '
                'inspect CONFIG` finds all such files of a config.'
            ) from error
    return items
