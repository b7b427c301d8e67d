"""Entries of an annotation file that show one image file.

Some converters write an entry for every object instead of every image.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .annotation_file import image_file_name

# What an entry shows: category and box of every annotation.
_Labels = set[tuple[Any, tuple[float, ...]]]


def shared_files(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Image files that more than one entry names.

    Args:
        images, annotations: of a file that is sound otherwise.

    Returns:
        File name to the ids of its entries: those of which one lacks an annotation of another, so
        that training would take that object for background in it; and those that all say the same.
    """
    names = [os.path.normpath(str(image_file_name(image) or '')) for image in images]
    # No name becomes the folder itself.
    several = {name for name, count in Counter(names).items() if count > 1 and name != '.'}
    if not several:
        return {}, {}
    ids: dict[str, list[Any]] = {name: [] for name in sorted(several)}
    labels: dict[Any, _Labels] = {}
    for image, name in zip(images, names, strict=True):
        if name in several:
            ids[name].append(image['id'])
            labels[image['id']] = set()
    for annotation in annotations:
        if annotation['image_id'] in labels:
            key = (annotation['category_id'], tuple(annotation['bbox']))
            labels[annotation['image_id']].add(key)
    differing = {
        name: found
        for name, found in ids.items()
        if any(labels[entry] != labels[found[0]] for entry in found)
    }
    return differing, {name: found for name, found in ids.items() if name not in differing}
