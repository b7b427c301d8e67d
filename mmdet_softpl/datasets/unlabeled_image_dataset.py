"""A data set of images without annotations: a folder, or the images of a json."""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from mmdet.datasets.base_det_dataset import BaseDetDataset
from mmdet.registry import DATASETS as MMDET_DATASETS
from PIL import Image

from mmdet_softpl.messages import some_of
from mmdet_softpl.registry import DATASETS

from .annotation_file import declared_size, image_file_name, load_annotation_file
from .exif_orientation import TAG, exif_orientation
from .in_threads import map_in_threads

IMAGE_EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')

_END_MARKERS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
_TAIL_BYTES = 1024
_TRANSPOSED = (5, 6, 7, 8)


@MMDET_DATASETS.register_module()
@DATASETS.register_module()
class UnlabeledImageDataset(BaseDetDataset):
    """Images without annotations, for the unlabelled branch of a semi-supervised config.

    Without ``ann_file`` every image below ``data_root`` joined with ``data_prefix['img']`` is
    taken: recursively, sorted by path, extensions of any case, hidden files and folders left
    out, links followed. Unreadable and truncated files are named in one warning and skipped;
    ``img_id`` is the position in this list. With ``ann_file`` the images are those of a COCO or
    LVIS json; its annotations, if any, are ignored, and ``img_id`` is the json's. An image whose
    size the json does not say (no key, 0 or null) is opened for it.

    Every item has ``img_path``, ``img_id``, ``height``, ``width`` (those of the json, else of the
    image as the host decodes it, that is with the EXIF orientation applied) and ``instances=[]``,
    so the host's ``LoadAnnotations``, ``LoadEmptyAnnotations``, ``MultiBranch`` and samplers work
    on it. The data set defines no class: give ``metainfo=dict(classes=...)``, or leave the key out
    of the comparison with ``ConcatDataset(ignore_keys=['classes', 'palette'])``.

    Args:
        ann_file: COCO or LVIS json of the images; empty for a folder.
        data_root: folder that ``ann_file`` and ``data_prefix`` are relative to.
        data_prefix: ``img``, folder of the images relative to ``data_root``.
        filter_cfg: ``min_size``, the shorter side in pixels below which an image is left out.
            ``filter_empty_gt`` may only be False.
        **kwargs: of the host's ``BaseDetDataset`` (``pipeline``, ``metainfo``, ``indices``,
            ``lazy_init``, ...).

    Raises:
        FileNotFoundError: the folder, or images of the json, do not exist.
        ValueError: the folder has no (readable) image; ``filter_empty_gt=True``; a key of the
            json is missing (:func:`.load_annotation_file`).
    """

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: dict | None = None,
        filter_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        data_prefix = {'img': ''} if data_prefix is None else dict(data_prefix)
        if set(data_prefix) != {'img'}:
            raise ValueError(
                f'UnlabeledImageDataset: data_prefix={data_prefix!r}; give the image folder as '
                "data_prefix=dict(img='FOLDER/')."
            )
        if filter_cfg is not None and filter_cfg.get('filter_empty_gt'):
            raise ValueError(
                'UnlabeledImageDataset: filter_cfg has filter_empty_gt=True, which would drop '
                'every unlabelled image. Set it to False or leave it out.'
            )
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            filter_cfg=filter_cfg,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """List the images.

        Returns:
            One dict an image, as the class describes.

        Raises:
            FileNotFoundError, ValueError: as the class.
        """
        folder = self.data_prefix['img']
        # The host joins an empty prefix to '<data_root>/' but leaves '' without a data_root.
        if not folder and not self.ann_file:
            raise ValueError(
                'UnlabeledImageDataset: neither data_root nor data_prefix nor ann_file is given. '
                "Give data_root='FOLDER'."
            )
        if folder and not os.path.isdir(folder):
            raise FileNotFoundError(
                f'UnlabeledImageDataset: the image folder {folder!r} does not exist '
                f'(data_root={self.data_root!r}). Correct `data_root` or `data_prefix`.'
            )
        return self._images_of_json(folder) if self.ann_file else self._images_of_folder(folder)

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images below ``filter_cfg['min_size']``, as the host's data sets do."""
        if self.test_mode or self.filter_cfg is None:
            return self.data_list
        source = self.ann_file or self.data_prefix['img']
        return of_min_size(self.data_list, self.filter_cfg.get('min_size', 0), source)

    def _images_of_folder(self, folder: str) -> list[dict[str, Any]]:
        paths = find_images(folder)
        if not paths:
            raise ValueError(
                f'UnlabeledImageDataset: no image below {folder!r} (looked for '
                f'{", ".join(IMAGE_EXTENSIONS)}, recursively). Correct `data_root` or '
                '`data_prefix`.'
            )
        sizes = map_in_threads(size_or_error, paths)
        readable = [(p, s) for p, s in zip(paths, sizes, strict=True) if isinstance(s, tuple)]
        bad = [f'{p} ({s})' for p, s in zip(paths, sizes, strict=True) if isinstance(s, str)]
        if bad:
            text = (
                f'{len(bad)} of {len(paths)} image files below {folder!r} cannot be read: '
                f'{some_of(bad)}.'
            )
            if not readable:
                raise ValueError(f'UnlabeledImageDataset: {text} No image is left.')
            warnings.warn(f'UnlabeledImageDataset: {text} They are skipped.', stacklevel=2)
        return [
            _data_info(path, image_id, height, width)
            for image_id, (path, (height, width)) in enumerate(readable)
        ]

    def _images_of_json(self, folder: str) -> list[dict[str, Any]]:
        images = load_annotation_file(self.ann_file)['images']
        if not images:
            raise ValueError(
                f'{self.ann_file}: key `images` is an empty list. Give a json that lists the '
                'unlabelled images, or leave `ann_file` out to take a whole folder.'
            )
        infos: list[dict[str, Any]] = []
        missing, unsized = [], []
        for position, image in enumerate(images):
            name = image_file_name(image)
            if name is None or 'id' not in image:
                raise ValueError(
                    f'{self.ann_file}: images[{position}] needs `id` and `file_name` (or '
                    f'`coco_url`), its keys are {sorted(image)}.'
                )
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                missing.append(path)
                continue
            height, width = declared_size(image.get('height')), declared_size(image.get('width'))
            if not (height and width):
                unsized.append(len(infos))
            infos.append(_data_info(path, image['id'], height or 0, width or 0))
        if missing:
            raise FileNotFoundError(
                f'{self.ann_file}: {len(missing)} of {len(images)} images do not exist: '
                f'{some_of(missing)}. Correct `data_prefix`, or fetch them.'
            )
        self._read_sizes([infos[i] for i in unsized], len(infos))
        return infos

    def _read_sizes(self, infos: list[dict[str, Any]], total: int) -> None:
        """Fill in the sizes that the json does not give."""
        sizes = map_in_threads(size_or_error, [info['img_path'] for info in infos])
        bad = []
        for info, size in zip(infos, sizes, strict=True):
            if isinstance(size, str):
                bad.append(f'{info["img_path"]} ({size})')
            else:
                info['height'], info['width'] = size
        if bad:
            raise ValueError(
                f'{self.ann_file}: {len(bad)} of {total} images have no size there and cannot be '
                f'read: {some_of(bad)}. Mend them, or take them out of the json.'
            )


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Image files below a folder.

    Args:
        folder: searched recursively; links to folders are followed, each folder once.

    Returns:
        Paths that start with ``folder``, sorted; hidden files and folders are left out.

    Raises:
        OSError: A folder cannot be read, so its images would be missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise error

    paths: list[str] = []
    visited: set[str] = set()
    for parent, folders, files in os.walk(os.fspath(folder), onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        paths.extend(
            os.path.join(parent, name)
            for name in files
            if not name.startswith('.') and name.lower().endswith(IMAGE_EXTENSIONS)
        )
    return sorted(paths)


def of_min_size(infos: list[dict[str, Any]], min_size: float, source: str) -> list[dict[str, Any]]:
    """Those whose shorter side has at least ``min_size`` pixels.

    Args:
        infos: with ``width`` and ``height`` in pixels.
        min_size: of ``filter_cfg``.
        source: json or folder that they come from.

    Raises:
        ValueError: none is left.
    """
    kept = [info for info in infos if min(info['width'], info['height']) >= min_size]
    if not kept:
        raise ValueError(
            f'{source}: each of the {len(infos)} images has a side below '
            f'filter_cfg.min_size={min_size}; lower it.'
        )
    return kept


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an image, from its header where its end looks whole.

    A JPEG or PNG whose end marker is not in its last 1024 bytes is decoded to tell a truncated
    file from one with a trailer; other formats are always decoded.

    Args:
        path: of the image.

    Returns:
        (height, width) in pixels, after the EXIF orientation.

    Raises:
        OSError: not an image, or truncated.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = exif_orientation(image) in _TRANSPOSED
            if turned and _decoded_otherwise(image.format or 'JPEG'):
                width, height = height, width
            marker = _END_MARKERS.get(image.format or '')
            if marker is None or marker not in _tail(path):
                image.load()
    except Image.DecompressionBombError:
        # Of a panorama, say: Pillow takes it for an attack, the host reads it.
        content = np.fromfile(path, dtype=np.uint8)
        try:
            decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
        except cv2.error:
            # Or of a damaged header, whose size is more than OpenCV allows.
            decoded = None
        if decoded is None:
            raise OSError(f'{os.fspath(path)}: OpenCV cannot read it') from None
        height, width = decoded.shape[:2]
    except (SyntaxError, ValueError, EOFError) as error:
        # What Pillow's decoders raise on damaged data besides OSError.
        raise OSError(f'{type(error).__name__}: {error}') from error
    return height, width


@lru_cache
def _decoded_otherwise(image_format: str) -> bool:
    """Whether OpenCV gives a turned image another size than Pillow finds in its header.

    It turns JPEG and PNG, and WebP in newer versions alone; of a TIFF Pillow tells the turned size.
    """
    exif, content = Image.Exif(), io.BytesIO()
    exif[TAG] = _TRANSPOSED[0]
    try:
        Image.new('RGB', (2, 1)).save(content, image_format, exif=exif)
    except (OSError, KeyError, ValueError):
        # What cannot be written to look at is taken for a JPEG of some camera.
        return True
    decoded = cv2.imdecode(np.frombuffer(content.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    with Image.open(content) as image:
        return decoded is not None and decoded.shape[:2] != image.size[::-1]


def _tail(path: str | os.PathLike) -> bytes:
    with open(path, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read()


def size_or_error(path: str | os.PathLike) -> tuple[int, int] | str:
    """``read_image_size``, or what is wrong with the image."""
    try:
        return read_image_size(path)
    except OSError as error:
        # Pillow's own message repeats the path.
        return 'not an image' if 'cannot identify' in str(error) else str(error)


def _data_info(path: str, image_id: int, height: int, width: int) -> dict[str, Any]:
    return {
        'img_path': path,
        'img_id': image_id,
        'height': height,
        'width': width,
        'instances': [],
    }
