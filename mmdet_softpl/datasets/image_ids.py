"""Which image of an annotation file a picture on the disk is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .annotation_file import image_file_name


def image_ids_by_file(
    paths: Sequence[str], images: Iterable[Mapping[str, Any]], root: str
) -> dict[str, int]:
    """Find images of an annotation file by their files.

    Args:
        paths: Pictures, all of the folder that is looked up.
        images: Entries of ``images`` of a COCO or LVIS json.
        root: Folder that the file names of ``images`` are relative to.

    Returns:
        Path to id of the image. The whole path counts; where no image has it, the base name, if
        one picture and one image alone have that. Pictures that no image is found for are left
        out.
    """
    named = [(name, image['id']) for image in images if (name := image_file_name(image))]
    by_path = {os.path.abspath(os.path.join(root, name)): img_id for name, img_id in named}
    by_name = {os.path.basename(name): img_id for name, img_id in named}
    twice = {
        name
        for names in (paths, [name for name, _ in named])
        for name, count in Counter(map(os.path.basename, names)).items()
        if count > 1
    }
    found: dict[str, int] = {}
    for path in paths:
        name = os.path.basename(path)
        if (whole := os.path.abspath(path)) in by_path:
            found[path] = by_path[whole]
        elif name in by_name and name not in twice:
            found[path] = by_name[name]
    return found
