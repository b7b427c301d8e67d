"""Reading many image files: size, content, and what is broken."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .in_threads import map_in_threads
from .unlabeled_image_dataset import size_or_error

# Of a file that Pillow reads: UnlabeledImageDataset, which asks Pillow, will not leave it out.
HOST_CANNOT = 'OpenCV, which mmdet decodes with, cannot read it'
# Of 255. Data of 12 bits in 16 reach 15, a dark photo rarely stays below 64 everywhere.
_DARK = 64


@dataclass(frozen=True)
class ScannedImage:
    """What reading one image gave.

    Attributes:
        height, width: in pixels as the host decodes it, after the EXIF orientation; 0 where
            nothing was decoded.
        digest: of the decoded pixels: equal for copies under other names and for lossless
            copies in other formats; empty where nothing was decoded.
        error: why it cannot be read, or that it is truncated; empty for a sound file.
        lost_depth: whether the file has 16 bits a channel and the host, which keeps the upper 8,
            sees next to nothing of it: no value of 64 or more.
    """

    height: int = 0
    width: int = 0
    digest: str = ''
    error: str = ''
    lost_depth: bool = False

    @property
    def readable(self) -> bool:
        """Whether the host gets an image out of it.

        Of a truncated file OpenCV 4 gives the part that is there, OpenCV 5 nothing.
        """
        return bool(self.digest)


def scan_image(path: str | os.PathLike) -> ScannedImage:
    """Decode one image as the host does.

    Args:
        path: of the file.

    Returns:
        What was found; nothing is raised for a file that cannot be read.
    """
    found = size_or_error(path)
    error = found if isinstance(found, str) else ''
    try:
        content = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    except (OSError, cv2.error):
        image = None
    if image is None:
        return ScannedImage(error=error or HOST_CANNOT)
    height, width = image.shape[:2]
    digest = hashlib.blake2b(f'{height} {width}'.encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    lost_depth = False
    if image.max() < _DARK:
        full = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        lost_depth = full is not None and full.dtype == np.uint16
    return ScannedImage(height, width, digest.hexdigest(), error, lost_depth)


def host_size_or_error(path: str) -> tuple[int, int] | str:
    """Height and width of an image, or why the host cannot read it or reads a part of it.

    A JPEG or PNG that looks whole is not decoded.
    """
    found = size_or_error(path)
    if isinstance(found, str) or path.lower().endswith(('.jpg', '.jpeg', '.png')):
        return found
    # Of other formats there are kinds, such as TIFF of floats, that Pillow alone reads.
    return found if scan_image(path).readable else HOST_CANNOT


def scan_images(
    paths: Iterable[str], advance: Callable[[], None] | None = None
) -> dict[str, ScannedImage]:
    """:func:`scan_image` of many files, in threads; each file is read once.

    Args:
        paths: of existing files.
        advance: called after each file, for a progress bar.

    Returns:
        What was found, by path.
    """
    wanted = list(dict.fromkeys(paths))
    return dict(zip(wanted, map_in_threads(scan_image, wanted, advance), strict=True))
