"""What tells files from other ones, for results that a later call may go on from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.dataset import BaseDataset


def file_key(path: str | os.PathLike) -> dict[str, Any]:
    """What tells a file from another one: name, size and time of change."""
    status = os.stat(path)
    return dict(
        path=os.path.abspath(path), bytes=status.st_size, changed=status.st_mtime_ns // 1_000_000
    )


def images_key(dataset: BaseDataset) -> str:
    """What tells the images of a data set from others: a hash of their files' names and states.

    Raises:
        FileNotFoundError: One is not where the config says.
    """
    digest = hashlib.sha256()
    for i in range(len(dataset)):
        path = dataset.get_data_info(i)['img_path']
        if '://' in path:
            digest.update(path.encode())
            continue
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'{path}: this image of {getattr(dataset, "ann_file", "the data set")} is not '
                'there; give the folder of its images (--images or --held-out-images, or '
                'data_prefix of the config).'
            )
        digest.update(repr(file_key(path)).encode())
    return digest.hexdigest()[:16]


def settings_key(settings: Any) -> str:
    """Settings as text that is the same whenever they are: of a config, dataclasses, arrays."""
    plain = settings.to_dict() if hasattr(settings, 'to_dict') else settings
    return json.dumps(plain, sort_keys=True, default=_plain)


def settings_hash(settings: Any) -> str:
    """A short hash of ``settings_key``."""
    return hashlib.sha256(settings_key(settings).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    # The text of an array leaves out most of a long one.
    for name in ('to_dict', 'tolist'):
        if hasattr(value, name):
            return getattr(value, name)()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return str(value)


def seen_key(cfg: Config, ann_file: str, images: str, pipeline: Any) -> dict[str, Any]:
    """All that a network's view of labelled images depends on, but for its weights.

    Args:
        cfg: Of the network.
        ann_file: Of the images.
        images: Their ``images_key``.
        pipeline: That loads them.

    Returns:
        Plain values, for json.
    """
    return dict(
        ann_file=file_key(ann_file),
        images=images,
        model=settings_key(cfg.model),
        pipeline=settings_key(pipeline),
    )
