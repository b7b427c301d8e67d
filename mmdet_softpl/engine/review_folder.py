"""The folder of a review export.

- ``labels/``: what the teacher sees on every unlabelled image, in parts; a later call goes on
  from them.
- ``images/``: copies of the chosen images, upright, each under a name of its own.
- ``annotations.json`` (COCO), or ``tasks.json`` and ``labeling_config.xml`` (Label Studio).
- ``manifest.json``: what was chosen and why; the import needs it. It is written last.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from mmdet_softpl.atomic_json import write_json, write_text
from mmdet_softpl.datasets.exif_orientation import exif_orientation
from mmdet_softpl.datasets.review_writing import (
    coco_export,
    label_studio_config,
    label_studio_tasks,
)

COCO_FILE, TASKS_FILE, INTERFACE_FILE = 'annotations.json', 'tasks.json', 'labeling_config.xml'
MANIFEST, KEY, PARTS, IMAGES = 'manifest.json', 'labels.json', 'labels', 'images'
# Of what `labels.json` holds.
KEYS = {'checkpoint_sha256', 'settings', 'min_confidence'}


class ReviewError(ValueError):
    """An export or an import cannot be done; the message says what to change."""


def read_manifest(out_dir: str | os.PathLike) -> dict[str, Any]:
    """The manifest of an export.

    Raises:
        ReviewError: the folder has none, or one that cannot be read.
    """
    path = Path(out_dir) / MANIFEST
    if not path.is_file():
        what = 'is a file' if Path(out_dir).is_file() else f'has no {MANIFEST}'
        raise ReviewError(
            f'{out_dir}: {what}. Give the folder of a finished `review export` first, the '
            'corrected file second.'
        )
    return _content(path)


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ReviewError(
            f'{path}: not a json file ({error}); fetch it from where the export was made.'
        ) from error


def read_labels(out_dir: str | os.PathLike) -> list[dict[str, Any]]:
    """What the teacher saw on every unlabelled image of an export, see ``label_in_parts``.

    Raises:
        ReviewError: the folder has no manifest, or its labels are not all there: an export with
            --overwrite was interrupted.
    """
    read_manifest(out_dir)
    labels_file = Path(out_dir) / KEY
    parts = sorted((Path(out_dir) / PARTS).glob('part-*.json'))
    records = [record for part in parts for record in _content(part)]
    key = _content(labels_file) if labels_file.is_file() else {}
    remedy = 'Let `review export --overwrite` end first, or leave out --unlabeled-out.'
    if len(records) != key.get('images'):
        raise ReviewError(
            f'{labels_file}: images={key.get("images")}, but {PARTS}/ has the labels of '
            f'{len(records)}, and images would be lost. {remedy}'
        )
    return records


def is_export(out: Path) -> bool:
    """Whether a folder was made by an export, finished or not, and by nobody else.

    ``labels.json`` is what others call their labels, too.
    """
    for name, keys in ((MANIFEST, {'version', 'classes', 'images'}), (KEY, KEYS)):
        try:
            found = json.loads((out / name).read_text(encoding='utf-8'))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and keys <= found.keys():
            return True
    return False


def write_folder(
    out: Path, manifest: dict[str, Any], format_: str, masks: str, image_url: str
) -> list[str]:
    """Write images, labels and, last, the manifest of an export; the former ones go.

    Args:
        out: the folder.
        manifest: what was chosen.
        format_, masks, image_url: see ``ExportOptions``.

    Returns:
        Paths of what was written.

    Raises:
        OSError: an image cannot be copied, or a file not be written.
    """
    # Labels of the other format would be those of images that are no longer there.
    for name in (MANIFEST, COCO_FILE, TASKS_FILE, INTERFACE_FILE):
        (out / name).unlink(missing_ok=True)
    folder = out / IMAGES
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    for image in manifest['images']:
        _copy_upright(image['path'], folder / image['file'])
    if format_ == 'coco':
        write_json(out / COCO_FILE, coco_export(manifest, masks))
        files = [COCO_FILE]
    else:
        write_json(out / TASKS_FILE, label_studio_tasks(manifest, image_url))
        text = label_studio_config(manifest['classes'], manifest['masks'])
        write_text(out / INTERFACE_FILE, text)
        files = [TASKS_FILE, INTERFACE_FILE]
    write_json(out / MANIFEST, manifest, indent=1)
    return [str(out / name) for name in (*files, IMAGES, MANIFEST)]


def _copy_upright(source: str, target: Path) -> None:
    """Copy an image; one with an EXIF orientation as the detector saw it, since tools differ."""
    with Image.open(source) as image:
        if exif_orientation(image) != 1:
            ImageOps.exif_transpose(image).save(target, format=image.format, quality=95)
            return
    shutil.copyfile(source, target)
