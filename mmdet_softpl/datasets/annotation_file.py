"""Reading of COCO and LVIS json files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from mmdet_softpl.messages import MAX_EXAMPLES


class AnnotationError(ValueError):
    """An annotation file cannot be used; the message names file, key and value.

    Attributes:
        problems: what is wrong, one sentence a kind (the message, where there is but one).
    """

    def __init__(self, message: str, problems: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


def load_annotation_file(ann_file: str | os.PathLike) -> dict[str, Any]:
    """Read a COCO or LVIS json.

    Args:
        ann_file: path of the file.

    Returns:
        The dict, which has the lists ``images`` and ``categories`` (``annotations`` may be
        missing: an unlabelled file).

    Raises:
        AnnotationError: the file is missing, empty, not json (with the position), begins with a
            byte order mark, or is not such a dict.
    """
    path = os.fspath(ann_file)
    if os.path.isdir(path):
        raise AnnotationError(f'{path}: a folder, but a json is needed. Give the json itself.')
    if not os.path.isfile(path):
        raise AnnotationError(
            f'{path}: the annotation file does not exist. A relative path counts from '
            f'{os.getcwd()!r}, where the command was started; in a config it is joined to '
            '`data_root` first. Correct it, or make the file.'
        )
    if os.path.getsize(path) == 0:
        raise AnnotationError(f'{path}: the annotation file is empty (0 bytes). Fetch it again.')
    try:
        with open(path, encoding='utf-8') as file:
            data = json.load(file)
    except json.JSONDecodeError as error:
        if error.doc.startswith('\ufeff'):
            raise AnnotationError(
                f'{path}: begins with a byte order mark, which mmdet does not read. Save it as '
                'UTF-8 without one (in Windows editors: "UTF-8", not "UTF-8 with BOM").'
            ) from error
        raise AnnotationError(
            f'{path}: not valid json at line {error.lineno}, column {error.colno} (character '
            f'{error.pos} of {len(error.doc)}): {error.msg}. The file is truncated or damaged; '
            'fetch or write it again.'
        ) from error
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f'{path}: not a text file in UTF-8 (byte {error.start}). Give a COCO or LVIS json.'
        ) from error
    if not isinstance(data, dict):
        raise AnnotationError(
            f'{path}: holds a {type(data).__name__}, not a dict with `images`, `annotations` and '
            '`categories`. Give a COCO or LVIS json (a list is usually a results file).'
        )
    for key in ('images', 'categories'):
        if not isinstance(data.get(key), list):
            found = f'a {type(data[key]).__name__}' if key in data else 'missing'
            raise AnnotationError(
                f'{path}: key `{key}` is {found}, a list is needed. Give a COCO or LVIS json; its '
                f'keys here are {sorted(data)[:MAX_EXAMPLES]}.'
            )
    return data


def image_file_name(image: Mapping[str, Any]) -> str | None:
    """File name of a COCO or LVIS image entry, relative to the image prefix.

    Args:
        image: entry of ``images``.

    Returns:
        ``file_name``, else the path of ``coco_url`` (LVIS v1:
        ``train2017/000000391895.jpg``), else None.
    """
    if image.get('file_name'):
        return image['file_name']
    if image.get('coco_url'):
        return urlsplit(image['coco_url']).path.lstrip('/')
    return None


def declared_size(value: Any) -> int:
    """Pixels of an image's ``height`` or ``width``, 0 where the file does not say."""
    known = isinstance(value, (int, float)) and 0 < value < math.inf
    return int(value) if known else 0
