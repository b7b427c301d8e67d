"""Images of a data set for a network to look at, with messages for what stands in the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import torch
from mmengine.dataset import BaseDataset
from torch import Tensor

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


def scale_of(metainfo: Mapping[str, Any]) -> Tensor:
    """Factors of the four numbers of a box, from the original image to what the network gets.

    Args:
        metainfo: Of the data sample: ``img_shape``, ``ori_shape`` and ``scale_factor``, which may
            be missing where nothing was resized.

    Returns:
        (4,) for x1, y1, x2, y2.

    Raises:
        ValueError: The image was resized, and ``scale_factor`` is missing.
    """
    factor = metainfo.get('scale_factor')
    if factor is None:
        seen, original = metainfo['img_shape'][:2], metainfo['ori_shape'][:2]
        if tuple(seen) != tuple(original):
            raise ValueError(
                f'{metainfo.get("img_path", "an image")}: {original[0]} x {original[1]} pixels '
                f'became {seen[0]} x {seen[1]}, but the pipeline does not say how. Add '
                "'scale_factor' to meta_keys of its PackDetInputs, or drop meta_keys."
            )
        factor = (1.0, 1.0)
    return torch.tensor(factor, dtype=torch.float32).repeat(2)
