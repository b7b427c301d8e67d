"""What comes back from annotation tools: a COCO json, or a Label Studio export."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mmdet_softpl.messages import MAX_EXAMPLES

from .annotation_entries import Faults
from .annotation_file import AnnotationError, declared_size, image_file_name
from .review_masks import decode_brush, encode_mask, segmentation_to_rle
from .review_writing import UNFINISHED


@dataclass(frozen=True)
class ReviewedObject:
    """An object as a reviewer left it.

    Attributes:
        class_name: its class.
        bbox: [x, y, width, height] in pixels.
        segmentation: polygons or COCO RLE, None where only boxes were asked for.
        rle: COCO RLE of ``segmentation``, or None.
    """

    class_name: str
    bbox: list[float]
    segmentation: Any
    rle: dict[str, Any] | None


@dataclass
class ReviewedImage:
    """An image as a reviewer left it.

    Attributes:
        file: name in the export's folder ``images``.
        objects: what is in it.
        complete: whether every object of every class is outlined; None: the file does not say.
        reviewer: who submitted it, if the file says so.
    """

    file: str
    objects: list[ReviewedObject] = field(default_factory=list)
    complete: bool | None = None
    reviewer: str | None = None


def read_reviewed(path: str | os.PathLike, manifest: dict[str, Any]) -> list[ReviewedImage]:
    """Read what came back: a COCO json, or a Label Studio export ("JSON").

    Images are recognised by their file name, classes by their name: tools renumber both.

    Args:
        path: of the file.
        manifest: of the export.

    Returns:
        The images that the file speaks of. Those of a Label Studio task that nobody submitted
        are not complete.

    Raises:
        AnnotationError: the file is missing, not json or neither of the two; images that the
            export does not have or that come twice; unknown classes; masks that are broken.
    """
    try:
        # Windows tools begin files with a byte order mark; this one the host never reads.
        content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except FileNotFoundError as error:
        raise AnnotationError(f'{path}: there is no such file.') from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnnotationError(
            f'{path}: not a json file ({error}). Give the COCO or Label Studio json itself, '
            'unpacked where the tool made an archive.'
        ) from error
    if isinstance(content, list) and all(isinstance(t, dict) and 'data' in t for t in content):
        return _Reader(path, manifest).label_studio(content)
    if isinstance(content, dict) and {'images', 'categories', 'annotations'} <= content.keys():
        return _Reader(path, manifest).coco(content)
    keys = sorted(content)[:MAX_EXAMPLES] if isinstance(content, dict) else type(content).__name__
    raise AnnotationError(
        f'{path}: neither a COCO json (`images`, `annotations`, `categories`) nor a Label Studio '
        f'export (a list of tasks with `data`), but {keys}.'
    )


class _Reader:
    """Reads one file, collecting its faults."""

    def __init__(self, path: str | os.PathLike, manifest: dict[str, Any]) -> None:
        self.path = path
        self.sizes = {i['file']: (i['height'], i['width']) for i in manifest['images']}
        self.classes = set(manifest['classes'])
        self.with_masks = manifest['masks']
        self.images: dict[str, ReviewedImage] = {}
        self.problems = Faults()

    def _finish(self) -> list[ReviewedImage]:
        self.problems.raise_if_any(self.path)
        return list(self.images.values())

    def _image(self, name: str, is_address: bool = False) -> ReviewedImage | None:
        file = exported_file(unquote(name), self.sizes) if is_address else None
        file = file or exported_file(name, self.sizes)
        if file is None:
            self.problems.add(
                'image that is not in the export',
                repr(name),
                'Give the file of this export, or take the image out.',
            )
            return None
        if file in self.images:
            self.problems.add('image that comes twice', repr(file), 'Keep one of them.')
            return None
        self.images[file] = ReviewedImage(file)
        return self.images[file]

    def _add(self, image: ReviewedImage, where: str, name: Any, found: ReviewedObject) -> None:
        if not isinstance(name, str) or name not in self.classes:
            self.problems.add(
                'class that the labelled set does not have',
                f'{name!r} ({where})',
                'Give the object a class of the export.',
            )
        else:
            image.objects.append(found)

    def _add_broken(self, example: str) -> None:
        self.problems.add(
            'broken mask' if self.with_masks else 'broken box',
            example,
            'Correct the object, or remove it.',
        )

    def coco(self, content: dict[str, Any]) -> list[ReviewedImage]:
        for key in ('categories', 'images', 'annotations'):
            _check_entries(self.path, f'`{key}`', content[key])
        names = {_key(c.get('id')): c.get('name') for c in content['categories']}
        by_id: dict[Hashable, ReviewedImage | None] = {}
        for entry in content['images']:
            if _key(entry.get('id')) in by_id:
                self.problems.add(
                    'image id that comes twice',
                    f'id={entry.get("id")!r}',
                    'Import the files of two tasks one after the other, or number the images anew.',
                )
            by_id[_key(entry.get('id'))] = self._coco_image(entry)
        for position, annotation in enumerate(content['annotations']):
            where = f'annotation id={annotation.get("id", f"[{position}]")!r}'
            image_id = _key(annotation.get('image_id'))
            if image_id not in by_id:
                self.problems.add(
                    'image id that `images` does not define',
                    f'{where}: {image_id}',
                    'Add the image, or remove the annotation.',
                )
                continue
            image = by_id[image_id]
            if image is None:
                continue
            try:
                name = names.get(_key(annotation.get('category_id')))
                found = self._coco_object(annotation, name, *self.sizes[image.file])
            except (ValueError, TypeError, KeyError) as error:
                self._add_broken(f'{where} in {image.file}: {error}')
                continue
            self._add(image, where, name, found)
        return self._finish()

    def _coco_image(self, entry: dict[str, Any]) -> ReviewedImage | None:
        image = self._image(str(image_file_name(entry) or ''))
        given = tuple(declared_size(entry.get(key)) for key in ('height', 'width'))
        if image is not None and all(given) and given != self.sizes[image.file]:
            height, width = self.sizes[image.file]
            self.problems.add(
                'image of another size',
                f'{image.file}: {given[0]} x {given[1]}, exported with {height} x {width}',
                'Export the labels for the images as they are, without resizing.',
            )
        return image

    def _coco_object(
        self, annotation: dict[str, Any], name: Any, height: int, width: int
    ) -> ReviewedObject:
        # `iscrowd` is no guide: CVAT writes 1 for every object that is a mask.
        if not self.with_masks:
            return ReviewedObject(name, _checked_box(annotation['bbox']), None, None)
        segmentation = annotation.get('segmentation')
        rle = segmentation_to_rle(segmentation, height, width)
        kept = rle if isinstance(segmentation, dict) else segmentation
        return ReviewedObject(name, _box_of(rle), kept, rle)

    def label_studio(self, tasks: list[dict[str, Any]]) -> list[ReviewedImage]:
        for position, task in enumerate(tasks):
            where = f'task {task.get("id", position)}'
            data, drawn = task['data'], task.get('annotations') or []
            _check_entries(self.path, f'`data` of {where}', [data])
            _check_entries(self.path, f'`annotations` of {where}', drawn)
            file, address = data.get('file'), data.get('image', '')
            image = self._image(str(file)) if file else self._image(str(address), is_address=True)
            if image is None:
                continue
            done = [a for a in drawn if not a.get('was_cancelled')]
            image.complete = bool(done)
            if not done:
                continue
            newest = max(done, key=lambda a: str(a.get('updated_at') or ''))
            who = newest.get('completed_by')
            who = who.get('email') or who.get('id') if isinstance(who, dict) else who
            image.reviewer = None if who is None else str(who)
            results = newest.get('result') or []
            _check_entries(self.path, f'`result` of {where}', results)
            for result in results:
                self._label_studio_result(image, where, result)
        return self._finish()

    def _label_studio_result(
        self, image: ReviewedImage, where: str, result: dict[str, Any]
    ) -> None:
        kind, value = result.get('type'), result.get('value') or {}
        _check_entries(self.path, f'`value` of {where}, region {result.get("id")!r}', [value])
        if kind == 'choices':
            image.complete = image.complete and UNFINISHED not in value.get('choices', ())
            return
        wanted = 'brushlabels' if self.with_masks else 'rectanglelabels'
        where = f'{where}, region {result.get("id")!r} in {image.file}'
        if kind != wanted:
            self.problems.add(
                f'region that is none of {wanted}',
                f'{where}: {kind!r}',
                'Draw the object anew with the tool of the export, or remove it.',
            )
            return
        names = value.get(wanted)
        # One that has lost its class is named as one of no class.
        names = names if isinstance(names, list) and names else [None]
        height, width = self.sizes[image.file]
        try:
            size = (result.get('original_height'), result.get('original_width'))
            if size != (height, width):
                raise ValueError(f'it is of size {size}, the image of {(height, width)}')
            if result.get('image_rotation'):
                raise ValueError('the image was rotated; turn it back')
            if self.with_masks:
                mask = decode_brush(value.get('rle') or [], height, width)
                if not mask.any():
                    raise ValueError('the mask covers no pixel of the image')
                rle = encode_mask(mask)
                found = ReviewedObject(names[0], _box_of(rle), rle, rle)
            else:
                x, y, w, h = (float(value[key]) for key in ('x', 'y', 'width', 'height'))
                box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
                found = ReviewedObject(names[0], _checked_box(box), None, None)
        except (ValueError, TypeError, KeyError) as error:
            self._add_broken(f'{where}: {error}')
            return
        self._add(image, where, names[0], found)


def exported_file(name: str, files: Collection[str]) -> str | None:
    """The file that a name ends with: tools put a folder or an address before it.

    Args:
        name: as the tool has it; Windows tools write backslashes.
        files: of the export.
    """
    path = name.replace('\\', '/')
    ends = [file for file in files if path == file or path.endswith(('/' + file, '=' + file))]
    return max(ends, key=len, default=None)


def _check_entries(path: str | os.PathLike, what: str, entries: Any) -> None:
    """Refuse what is no list of objects: nothing of it can be understood."""
    if not isinstance(entries, list):
        raise AnnotationError(
            f'{path}: {what} is a {type(entries).__name__}, a list of objects is needed. Export '
            'the annotations once more.'
        )
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise AnnotationError(
                f'{path}: entry {position} of {what} is {str(entry)[:80]!r}, an object with keys '
                'is needed. Export the annotations once more.'
            )


def _key(identifier: Any) -> Hashable:
    """What a file calls an id may be anything."""
    return identifier if isinstance(identifier, Hashable) else repr(identifier)


def _box_of(rle: dict[str, Any]) -> list[float]:
    from pycocotools import mask as coco_mask

    return [float(v) for v in coco_mask.toBbox(rle)]


def _checked_box(box: Sequence[float]) -> list[float]:
    x, y, width, height = (float(v) for v in box)
    if not (width > 0 and height > 0):
        raise ValueError(f'bbox={list(box)} is not [x, y, width, height] of a positive size')
    return [x, y, width, height]
