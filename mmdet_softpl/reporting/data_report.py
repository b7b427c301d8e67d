"""An inspection of a config's data as one dict, and as text.

Shape letters: C classes, in label order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from mmdet_softpl.datasets.config_sets import LABELLED, UNLABELLED, VALIDATION
from mmdet_softpl.datasets.data_inspection import Inspection
from mmdet_softpl.datasets.set_contents import SetContents

if TYPE_CHECKING:
    from mmdet_softpl.engine.derived_settings import LabellerSettings, TrainingLength

GROUPS = {'r': 'rare', 'c': 'common', 'f': 'frequent'}


def data_report(
    config: str,
    inspection: Inspection,
    labeller: LabellerSettings | None,
    length: TrainingLength | None,
    has_labeller: bool,
) -> dict[str, Any]:
    """Everything that ``inspect`` prints, as json takes it.

    Args:
        config: path of the config.
        inspection: of its data.
        labeller: what its labeller comes to, or None.
        length: of its training, or None.
        has_labeller: there is one, whether or not its settings are known.

    Returns:
        ``config``, ``trains`` (no finding is an error), ``images_read``, ``sets`` (one dict a
        set), ``classes`` (one dict a class of the first labelled set), ``settings`` and
        ``findings``.
    """
    settings: dict[str, Any] = {
        'labeller': None if labeller is None else labeller.arguments,
        'length': None if length is None else asdict(length),
        'has_labeller': has_labeller,
    }
    return {
        'config': config,
        'trains': inspection.trains,
        'images_read': inspection.scanned is not None,
        'sets': [_set(inspection, one) for one in inspection.sets],
        'classes': list(_classes(inspection, labeller)),
        'settings': settings,
        'findings': [asdict(finding) for finding in inspection.findings],
    }


def image_sizes(inspection: Inspection, contents: SetContents) -> list[tuple[int, int]]:
    """(width, height) in pixels of the images whose size is known, decoded before declared."""
    sizes = []
    for image in contents.images:
        scanned = (inspection.scanned or {}).get(image.path)
        if scanned is not None and scanned.readable:
            sizes.append((scanned.width, scanned.height))
        elif image.width and image.height:
            sizes.append((image.width, image.height))
    return sizes


def _set(inspection: Inspection, one: SetContents) -> dict[str, Any]:
    statistics, configured = one.statistics, one.configured
    with_classes = statistics is not None and configured.role != UNLABELLED
    counts = statistics.image_counts if with_classes else ()  # type: ignore[union-attr]
    return {
        'name': configured.name,
        'role': configured.role,
        'key': configured.key,
        'type': configured.type,
        'ann_file': configured.ann_file,
        'image_root': configured.image_root,
        'images': len(one.images),
        'used_images': one.used_images,
        'epoch_images': one.epoch_images,
        'instances': one.num_instances if with_classes else None,
        'num_classes': len(counts) if with_classes else None,
        'groups': (
            {letter: statistics.groups.count(letter) for letter in GROUPS}  # type: ignore[union-attr]
            if with_classes and configured.role == LABELLED
            else None
        ),
        'classes_without_images': (
            [c for c, n in zip(statistics.classes, counts, strict=True) if n == 0]  # type: ignore[union-attr]
            if with_classes
            else None
        ),
        'image_sizes': _size_summary(image_sizes(inspection, one)),
    }


def _size_summary(sizes: list[tuple[int, int]]) -> dict[str, Any] | None:
    if not sizes:
        return None
    array = np.array(sizes)
    shorter, longer = array.min(axis=1), array.max(axis=1)
    return {
        'shorter_side': _spread(shorter),
        'longer_side': _spread(longer),
        'portrait': int((array[:, 0] < array[:, 1]).sum()),
        'known': len(sizes),
    }


def _spread(values: np.ndarray) -> dict[str, int]:
    return {
        'min': int(values.min()),
        'median': int(np.median(values)),
        'max': int(values.max()),
    }


def _classes(inspection: Inspection, labeller: LabellerSettings | None) -> Iterator[dict[str, Any]]:
    labelled = _first(inspection, LABELLED)
    if labelled is None or labelled.statistics is None:
        return
    validation = _first(inspection, VALIDATION)
    evaluated: dict[str, tuple[int, int]] = {}
    if validation is not None and validation.statistics is not None:
        found = validation.statistics
        columns = (found.image_counts.tolist(), found.instance_counts.tolist())
        evaluated = dict(zip(found.classes, zip(*columns, strict=True), strict=True))
    unlabelled = sum(s.used_images for s in inspection.sets if s.configured.role == UNLABELLED)
    statistics = labelled.statistics
    expected = None if labeller is None else labeller.expected_per_image
    for label, name in enumerate(statistics.classes):
        images, instances = evaluated.get(name, (None, None))
        rate = None if expected is None else float(expected[label])
        yield {
            'name': name,
            'group': statistics.groups[label],
            'images': int(statistics.image_counts[label]),
            'instances': int(statistics.instance_counts[label]),
            'validation_images': images,
            'validation_instances': instances,
            'boost': None if labeller is None else float(labeller.boosts[label]),
            'expected_per_image': rate,
            'expected_total': None if rate is None else rate * unlabelled,
            'repeat_factor': labelled.repeat_factors.get(name, 1.0),
        }


def _first(inspection: Inspection, role: str) -> SetContents | None:
    return next((s for s in inspection.sets if s.configured.role == role), None)
