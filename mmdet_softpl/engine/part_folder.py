"""A folder of parts of a long work, from which a later call with the same settings goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import write_json

PART_SIZE = 64


def claim_folder(folder: Path, key: dict[str, Any]) -> bool:
    """Make a folder of parts ours: what other settings left there is removed.

    Args:
        folder: Of folders of ``part-*.json``.
        key: All that the parts depend on.

    Returns:
        Whether parts of the same settings are there to go on from.

    Raises:
        FileExistsError: The folder holds something else.
    """
    # As it comes back from the file, where a tuple is a list.
    key = json.loads(json.dumps(key))
    marker = folder / 'settings.json'
    if folder.exists() and any(folder.iterdir()) and not marker.is_file():
        raise FileExistsError(
            f'{folder}: this folder is for what an interrupted call goes on from, but holds other '
            'files. Choose another output file, or move them.'
        )
    same = marker.is_file() and json.loads(marker.read_text(encoding='utf-8')) == key
    if not same:
        for path in folder.glob('*/part-*.json'):
            path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(marker, key)
    return same


def in_parts(
    total: int,
    folder: Path,
    look: Callable[[range], list[Any]],
    *,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[list[Any]]:
    """What ``look`` makes of ``total`` items, in parts of 64 of which a finished one is read again.

    The caller sees to it that ``folder`` belongs to these items, see ``claim_folder``.

    Args:
        total: Number of items.
        folder: Of the files ``part-0000000.json``, ..., named by their first item; must exist.
        look: Makes, of the indices of a batch, what json can hold, for each item one.
        batch_size: Items that are looked at together.
        progress: Called with the number of items done, those of earlier calls included.

    Yields:
        The parts, in order.
    """
    for start in range(0, total, PART_SIZE):
        path, stop = folder / f'part-{start:07d}.json', min(start + PART_SIZE, total)
        if path.is_file():
            part = json.loads(path.read_text(encoding='utf-8'))
        else:
            part = []
            for first in range(start, stop, batch_size):
                batch = range(first, min(first + batch_size, stop))
                part += look(batch)
                progress(batch.stop)
            write_json(path, part)
        yield part
        progress(stop)
