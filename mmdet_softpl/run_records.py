"""What a run writes down for its report: json lines, one file for each start of the training.

The files lie in ``WORK_DIR/TIMESTAMP/`` beside mmengine's own logs. A file opens with a head, a
record with ``start_iter``, the iteration at which that start of the training went on: what older
files say of later iterations was undone by the resume (``after_restarts``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet_softpl.atomic_json import finite

NETWORKS = ('teacher', 'student')
PSEUDO_LABELS_FILE = 'pseudo_labels.jsonl'
"""Head: ``classes``, ``groups`` (0 rare, 1 common, 2 frequent), ``expected_per_image``. Records,
one a refresh: ``iter``, ``images``, ``kept_per_image``, ``thresholds``, ``boosts``; lists have one
value a class."""
AUDIT_FILE = 'pseudo_label_audit.json'
"""In the work directory itself, written at the end of the training: what every class got."""
VALIDATIONS_FILE = 'validations.jsonl'
"""Head: ``classes``, ``groups`` (or None), ``supervised_iters``. Records, one a validation:
``iter`` and ``parts``, by ``'teacher'``, ``'student'`` or ``'model'``: ``metrics``, and of
``LongTailMetric`` ``class_AP`` (``'bbox'`` or ``'segm'`` to a list) and ``reliability``
(3 x groups x bins)."""


def metrics_by_network(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """``teacher/longtail/segm_AP`` and so on as ``longtail/segm_AP`` of ``'teacher'``.

    Networks without a metric are absent.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in NETWORKS:
        prefix = f'{name}/'
        own = {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}
        if own:
            found[name] = own
    return found


def append_record(path: str | os.PathLike, record: dict[str, Any]) -> None:
    """Append one line; NaN and infinity become null.

    Args:
        path: File; made where it is absent, its folder must exist.
        record: Plain values.
    """
    line = json.dumps(finite(record), allow_nan=False, separators=(',', ':'))
    with open(path, 'a', encoding='utf-8') as file:
        file.write(line + '\n')


def read_records(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a file, oldest first; a last line that was cut off is left out.

    Raises:
        ValueError: Another line is no json object.
    """
    lines = Path(path).read_text(encoding='utf-8').splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError('no object')
        except ValueError as error:
            if number == len(lines):
                break
            raise ValueError(f'{path}: line {number} is no json object: {line[:80]!r}.') from error
        records.append(record)
    return records


def after_restarts(
    parts: Iterable[tuple[int, Sequence[dict[str, Any]]]],
) -> list[dict[str, Any]]:
    """The records that hold, of a training that was stopped and resumed.

    Args:
        parts: Of each start of the training, oldest first, the iteration at which it went on
            (0 for a new training) and its records, each with ``iter``.

    Returns:
        Records by iteration, one for each: a later start takes the place of what older ones
        wrote of the iterations after its own.
    """
    valid: dict[int, dict[str, Any]] = {}
    for start_iter, records in parts:
        valid = {i: record for i, record in valid.items() if i <= start_iter}
        valid.update((record['iter'], record) for record in records)
    return [valid[i] for i in sorted(valid)]
