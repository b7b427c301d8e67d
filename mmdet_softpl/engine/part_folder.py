"""A folder of parts of a long work, from which a later call with the same settings goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import write_json


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
