"""Objects cut out of one image and pasted into another.

Shape letters: **K** objects of an image, **H**, **W** of the image, **h**, **w** of what is cut
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import mmcv
import numpy as np


@dataclass(frozen=True)
class Cutout:
    """An object with the pixels of its box.

    Attributes:
        image: (h, w, ...) pixels.
        mask: (h, w) bool, which of them are the object's; touches all four sides.
    """

    image: np.ndarray
    mask: np.ndarray

    def resized(self, factor: float) -> Cutout | None:
        """Height and width times ``factor`` > 0; None where nothing is left of the object."""
        h, w = (max(round(side * factor), 1) for side in self.mask.shape)
        if (h, w) == self.mask.shape:
            return self
        # The share of the object in each new pixel: thin objects would slip through a grid.
        how = 'area' if factor < 1 else 'bilinear'
        share = mmcv.imresize(
            self.mask.astype(np.float32), (w, h), interpolation=how, backend='cv2'
        )
        image = mmcv.imresize(self.image, (w, h), interpolation=how, backend='cv2')
        # A single channel is lost on the way.
        return cut_out(image.reshape(h, w, *self.image.shape[2:]), share >= 0.5)

    def mirrored(self) -> Cutout:
        """Left and right exchanged."""
        return Cutout(self.image[:, ::-1], self.mask[:, ::-1])


def cut_out(image: np.ndarray, mask: np.ndarray) -> Cutout | None:
    """The object of a mask, or None where the mask is empty.

    Args:
        image: (H, W, ...) pixels.
        mask: (H, W) of the object, nonzero inside.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Cutout(image[box], mask[box].astype(bool))


def paste(image: np.ndarray, masks: np.ndarray, cutout: Cutout, top: int, left: int) -> np.ndarray:
    """Lay an object over an image and over the objects that are in it (in place).

    The edge is hard: blending made no difference to Simple Copy-Paste (arXiv 2012.07177).

    Args:
        image: (H, W, ...) pixels.
        masks: (K, H, W) uint8 of its objects, which lose what is covered.
        cutout: (h, w), inside the image.
        top, left: Row and column of its first pixel.

    Returns:
        (K,) pixels that each object lost.
    """
    h, w = cutout.mask.shape
    window = np.s_[top : top + h, left : left + w]
    image[window][cutout.mask] = cutout.image[cutout.mask]
    below = masks[:, top : top + h, left : left + w]
    lost = below[:, cutout.mask].sum(1, dtype=np.int64)
    below[:, cutout.mask] = 0
    return lost
