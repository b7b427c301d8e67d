"""What can be wrong with the categories, images and annotations of a COCO or LVIS file.

Shape legend: A annotations.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmdet_softpl.messages import MAX_EXAMPLES, some_of

from .annotation_file import AnnotationError, image_file_name


@dataclass
class Faults:
    """Faults of one file by kind, of which a file can have millions.

    Attributes:
        advice: kind -> what to do about it.
        examples: kind -> the first ones, each with its place in the file and its value.
        counts: kind -> how many there are.
    """

    advice: dict[str, str] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, example: str, advice: str) -> None:
        """Note one fault."""
        self.advice[kind] = advice
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < MAX_EXAMPLES:
            shown.append(example)

    def pop(self, kind: str) -> str:
        """Describe a kind and forget it."""
        text = self.describe(kind)
        del self.advice[kind], self.examples[kind], self.counts[kind]
        return text

    def describe(self, kind: str) -> str:
        """Kind, number, first examples and advice in one sentence or two."""
        count = self.counts[kind]
        shown = some_of(self.examples[kind], total=count)
        return f'{kind} ({count}): {shown}. {self.advice[kind]}'

    def raise_if_any(self, ann_file: str | os.PathLike) -> None:
        """Raise AnnotationError with all kinds, if there is one."""
        if self.counts:
            problems = [self.describe(kind) for kind in self.counts]
            lines = '\n'.join(f'  - {problem}' for problem in problems)
            raise AnnotationError(
                f'{ann_file}: the annotation file cannot be used:\n{lines}', problems
            )


# What LVIS writes beside `frequency` into a category, and into an image.
COUNT_KEYS = ('image_count', 'instance_count')
FEDERATED_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')
# Doubles, in which the evaluation looks ids up, tell whole numbers below it apart.
_ID_LIMIT = 2**53

BAD_BOX = 'box of zero size'
BAD_POLYGON = 'polygon of fewer than three points'


def check_ids(data: dict[str, Any], problems: Faults) -> None:
    """Note ids of images, categories and annotations that are no whole numbers, or below 0.

    Training takes any id, but the evaluation keeps them in arrays of integers, and `review` writes
    new ones.
    """
    for key in ('images', 'categories', 'annotations'):
        items = data.get(key)
        for position, item in enumerate(items if isinstance(items, list) else ()):
            if not isinstance(item, dict) or 'id' not in item:
                continue
            # pandas writes 3.0 for 3, which counts as the same everywhere.
            if not isinstance(item['id'], (int, float)) or item['id'] % 1 != 0:
                problems.add(
                    'id that is no whole number',
                    f'{key}[{position}]: id={item["id"]!r}',
                    'COCO ids are integers; number them anew.',
                )
            elif key == 'images' and item['id'] < 0:
                problems.add(
                    'id below 0',
                    f'{key}[{position}]: id={item["id"]!r}',
                    'The evaluation takes no such ids of images; number them anew.',
                )
            elif key != 'annotations' and abs(item['id']) >= _ID_LIMIT:
                problems.add(
                    'id of 2**53 or more',
                    f'{key}[{position}]: id={item["id"]!r}',
                    'The evaluation keeps ids in floating point and would mix them up; number '
                    'them anew.',
                )


def _usable_id(identifier: Any) -> bool:
    return isinstance(identifier, (int, float, str))


def is_count(value: Any) -> bool:
    """Whether a value of ``COUNT_KEYS`` can be compared with a number.

    pandas writes 3.0 for 3, and None stands for a count that is not given.
    """
    return value is None or (isinstance(value, (int, float)) and value >= 0 and value % 1 == 0)


def check_categories(
    categories: list[dict], classes: Sequence[str] | None, problems: Faults
) -> tuple[dict[int, int], list[str], list[int]]:
    """Category id -> index, names, and the indices of ``classes`` in the file's order.

    Raises:
        AnnotationError: ``classes`` is a string.
    """
    index: dict[int, int] = {}
    names: list[str] = []
    known: set[str] = set()
    for position, category in enumerate(categories):
        if not isinstance(category, dict) or 'id' not in category or 'name' not in category:
            problems.add(
                'category without `id` or `name`',
                f'categories[{position}] = {category!r}',
                'Give every category both keys.',
            )
            continue
        if not isinstance(category['name'], str) or not _usable_id(category['id']):
            problems.add(
                'category whose `name` is no text, or whose `id` is no number',
                f'categories[{position}] = {category!r}',
                'Write names in quotation marks, and ids as whole numbers.',
            )
            continue
        if category['id'] in index:
            problems.add(
                'duplicate category id',
                f'categories[{position}]: id={category["id"]!r} ({category["name"]!r})',
                'Give every category its own id.',
            )
            continue
        if category['name'] in known:
            problems.add(
                'duplicate category name',
                f'categories[{position}]: name={category["name"]!r}',
                'Rename one of them, or merge the two categories.',
            )
        letter = category.get('frequency', 'r')
        if letter not in ('r', 'c', 'f'):
            problems.add(
                'unknown `frequency`',
                f'categories[{position}]: frequency={letter!r}',
                "LVIS knows 'r', 'c' and 'f'.",
            )
        for key in COUNT_KEYS:
            if not is_count(category.get(key)):
                problems.add(
                    f'`{key}` that is no whole number',
                    f'categories[{position}]: {key}={category[key]!r}',
                    'Count again, or leave the key out of all categories.',
                )
        index[category['id']] = len(names)
        names.append(category['name'])
        known.add(category['name'])
    if not categories:
        problems.add('no category', '`categories` is an empty list', 'List the classes there.')
    kept = list(range(len(names)))
    if classes is not None:
        if isinstance(classes, str):
            raise AnnotationError(
                f'`classes` is the string {classes!r}. Give a tuple of names; a single class is '
                f'written ({classes!r},).'
            )
        for name in classes:
            if name not in known:
                problems.add(
                    'class of `metainfo.classes` that the file does not define',
                    repr(name),
                    f'The file defines {names[:MAX_EXAMPLES]}'
                    f'{" ..." if len(names) > MAX_EXAMPLES else ""}.',
                )
        wanted = set(classes)
        kept = [i for i in kept if names[i] in wanted]
        for label, (name, i) in enumerate(zip((n for n in classes if n in known), kept)):  # noqa: B905
            if name != names[i]:
                problems.add(
                    "`metainfo.classes` not in the order of the file's `categories`",
                    f'label {label} is {name!r}, in the file {names[i]!r}',
                    'mmdet numbers labels in the order of the file: sort `classes` like it.',
                )
    return index, names, kept


def check_images(
    images: list[dict], image_root: str | os.PathLike | None, problems: Faults
) -> dict[int, int]:
    """Image id -> position in ``images``."""
    index: dict[int, int] = {}
    if not images:
        problems.add('no image', '`images` is an empty list', 'List the images there.')
    for position, image in enumerate(images):
        if not isinstance(image, dict) or 'id' not in image:
            problems.add(
                'image without `id`',
                f'images[{position}] = {str(image)[:80]}',
                'Give every image an id.',
            )
            continue
        if not _usable_id(image['id']):
            problems.add(
                'image `id` that is no number',
                f'images[{position}]: id={image["id"]!r}',
                'COCO ids are integers; number them anew.',
            )
            continue
        for key in FEDERATED_KEYS:
            listed = image.get(key, [])
            if not isinstance(listed, list) or not all(map(_usable_id, listed)):
                problems.add(
                    f'`{key}` that is no list of ids',
                    f'images[{position}]: {key}={str(listed)[:80]}',
                    'Give a list of category ids, which may be empty.',
                )
        if image['id'] in index:
            problems.add(
                'duplicate image id',
                f'images[{position}]: id={image["id"]!r}',
                'Give every image its own id.',
            )
        index[image['id']] = position
        if image_root is not None:
            name = image_file_name(image)
            if name is None or not os.path.isfile(os.path.join(image_root, name)):
                problems.add(
                    'missing image file',
                    f'images[{position}]: file_name={name!r} under {os.fspath(image_root)}',
                    'Correct the folder (`data_prefix` in a config), or fetch the images.',
                )
    return index


def check_instances(
    annotations: list[dict],
    image_ids: dict[int, int],
    category_ids: dict[int, int],
    problems: Faults,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of image and category of every annotation but crowds, (A,) int64 each."""
    seen: set[int] = set()
    image_column: list[int] = []
    class_column: list[int] = []
    for position, annotation in enumerate(annotations):
        if isinstance(annotation, dict) and 'id' not in annotation:
            problems.add(
                'annotation without `id`',
                f'annotations[{position}] = {str(annotation)[:80]}',
                'Number the annotations.',
            )
            continue
        try:
            ann_id = annotation['id']
            image = image_ids.get(annotation['image_id'])
            category = category_ids.get(annotation['category_id'])
            x, y, width, height = annotation['bbox']
            segmentation = annotation.get('segmentation')
            finite = math.isfinite(x + y + width + height)
            hash(ann_id)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problems.add(
                'annotation without usable `image_id`, `category_id` or `bbox`',
                f'annotations[{position}]: {type(error).__name__}: {error}',
                'Ids are numbers, and a bbox is [x, y, width, height] in pixels, four numbers.',
            )
            continue
        if ann_id in seen:
            problems.add(
                'duplicate annotation id',
                f'annotations[{position}]: id={ann_id!r}',
                'Give every annotation its own id.',
            )
        seen.add(ann_id)
        if category is None:
            problems.add(
                'category id that `categories` does not define',
                f'annotation id={ann_id!r}: category_id={annotation["category_id"]!r}',
                _add_or_convert('category', annotation['category_id'], category_ids),
            )
        if image is None:
            problems.add(
                'image id that `images` does not define',
                f'annotation id={ann_id!r}: image_id={annotation["image_id"]!r}',
                _add_or_convert('image', annotation['image_id'], image_ids),
            )
        if not finite or width < 0 or height < 0:
            problems.add(
                'box of negative or infinite size',
                f'annotation id={ann_id!r}: bbox={annotation["bbox"]}',
                'A bbox is [x, y, width, height] in pixels; correct it.',
            )
        elif width == 0 or height == 0:
            problems.add(
                BAD_BOX,
                f'annotation id={ann_id!r}: bbox={annotation["bbox"]}',
                'Remove the annotation, or correct its box.',
            )
        if isinstance(segmentation, list):
            for polygon in segmentation:
                if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                    problems.add(
                        BAD_POLYGON,
                        f'annotation id={ann_id!r}: segmentation={str(polygon)[:60]}',
                        'A polygon is [x1, y1, x2, y2, x3, y3, ...]; remove or correct it.',
                    )
                    break
                if not are_finite(polygon):
                    problems.add(
                        'polygon with a coordinate that is no finite number',
                        f'annotation id={ann_id!r}: segmentation={str(polygon)[:60]}',
                        'mmdet would crash on it; remove or correct the polygon.',
                    )
                    break
        elif segmentation is not None and not isinstance(segmentation, dict):
            problems.add(
                '`segmentation` that is neither polygons nor an RLE',
                f'annotation id={ann_id!r}: segmentation={str(segmentation)[:60]}',
                'Give a list of polygons or an RLE, or leave the key out.',
            )
        if annotation.get('iscrowd') not in (None, 0, 1):
            problems.add(
                '`iscrowd` that is neither 0 nor 1',
                f'annotation id={ann_id!r}: iscrowd={annotation["iscrowd"]!r}',
                'Write the number 0 for a single object, without quotation marks.',
            )
        if image is not None and category is not None and not annotation.get('iscrowd'):
            image_column.append(image)
            class_column.append(category)
    return np.array(image_column, dtype=np.int64), np.array(class_column, dtype=np.int64)


def are_finite(polygon: Sequence[Any]) -> bool:
    """Whether all coordinates are numbers, and none is NaN or infinite."""
    try:
        return math.isfinite(sum(polygon))
    except TypeError:
        return False


def _add_or_convert(what: str, given: Any, known: Mapping[Any, int]) -> str:
    """What to do about an id that is not known."""
    converted = int(given) if isinstance(given, str) and given.isdecimal() else str(given)
    if converted in known:
        return (
            f'There is {converted!r}, which is not the same: write the ids of both as numbers, '
            'without quotation marks.'
        )
    return f'Add the {what}, or remove the annotation.'
