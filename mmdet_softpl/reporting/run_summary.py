"""The figures of a report: by class, by group, and what boosting cost.

Shape letters: **C** foreground classes, **R** refreshes of the labeller.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmdet_softpl.functional.frequency import GROUP_NAMES
from mmdet_softpl.reporting.work_dir import WorkDir
from mmdet_softpl.run_records import NETWORKS

LETTERS = ('r', 'c', 'f')
PARTS = (*NETWORKS, 'model')
COCO_SPELLINGS = {'AP': 'mAP', 'AP50': 'mAP_50', 'AP75': 'mAP_75'}
"""How mmdet's ``CocoMetric`` calls what ours and LVIS call otherwise, behind ``bbox_``."""


def main_part(run: WorkDir) -> str | None:
    """The network whose results come first: the teacher, where it was evaluated."""
    present = {name for record in run.validations for name in record['parts']}
    return next((name for name in PARTS if name in present), None)


def metric_of(part: Mapping[str, Any], name: str) -> float | None:
    """A metric without its prefix, e.g. ``segm_AP``; None where it is absent, -1 or not finite.

    ``segm_AP`` is also found as ``segm_mAP`` (``COCO_SPELLINGS``).
    """
    kind, _, rest = name.partition('_')
    for spelling in (name, f'{kind}_{COCO_SPELLINGS.get(rest, rest)}'):
        for key, value in part.get('metrics', {}).items():
            if key.rsplit('/', 1)[-1] == spelling and value is not None:
                return float(value) if math.isfinite(value) and value >= 0 else None
    return None


def has_ap(run: WorkDir) -> bool:
    """Whether a validation has an AP of all classes, be it -1."""
    names = {f'{kind}_{ap}' for kind in ('bbox', 'segm') for ap in ('AP', COCO_SPELLINGS['AP'])}
    return any(
        key.rsplit('/', 1)[-1] in names
        for record in run.validations
        for part in record['parts'].values()
        for key in part['metrics']
    )


def iou_type(run: WorkDir) -> str:
    """``'segm'`` where masks were evaluated, else ``'bbox'``."""
    for record in run.validations:
        for part in record['parts'].values():
            if any(key.rsplit('/', 1)[-1].startswith('segm_') for key in part['metrics']):
                return 'segm'
    return 'bbox'


def metric_series(run: WorkDir, part: str, name: str) -> tuple[list[int], list[float | None]]:
    """A metric over the validations: iterations and values."""
    records = [record for record in run.validations if part in record['parts']]
    return (
        [record['iter'] for record in records],
        [metric_of(record['parts'][part], name) for record in records],
    )


def before_and_last(
    run: WorkDir, records: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Two validations that show what pseudo-labels changed.

    Args:
        run: The training.
        records: Of its validations, at least one.

    Returns:
        The last one before pseudo-labels began, else the first, None where there is but one; and
        the last of all.
    """
    if len(records) < 2:
        # What it changed since itself is nothing that was measured.
        return None, records[-1]
    before = [record for record in records if record['iter'] <= run.supervised_iters]
    return before[-1] if before and len(before) < len(records) else records[0], records[-1]


def before_title(run: WorkDir) -> str:
    """What the first of :func:`before_and_last` is, for a reader."""
    part = main_part(run)
    records = [record for record in run.validations if part in record['parts']]
    if not records:
        return 'the first validation'
    before = before_and_last(run, records)[0]
    if before is None:
        return f'unknown, with a single validation (iteration {records[0]["iter"]:,})'
    iteration = before['iter']
    if 0 < iteration <= run.supervised_iters < records[-1]['iter']:
        return f'the last validation before pseudo-labels (iteration {iteration:,})'
    return f'the first validation (iteration {iteration:,})'


def group_rows(run: WorkDir) -> list[dict[str, Any]]:
    """AP of each network before pseudo-labels and at last: all classes, rare, common, frequent."""
    rows = []
    kind = iou_type(run)
    for part in PARTS:
        records = [record for record in run.validations if part in record['parts']]
        if not records:
            continue
        ends = before_and_last(run, records)
        for name, suffix in (('all classes', ''), *zip(GROUP_NAMES, LETTERS, strict=True)):
            before, last = (
                None if r is None else metric_of(r['parts'][part], f'{kind}_AP{suffix}')
                for r in ends
            )
            rows.append(
                dict(
                    part=part,
                    group=name,
                    before=before,
                    last=last,
                    change=_difference(last, before),
                    ap50=metric_of(ends[1]['parts'][part], f'{kind}_AP50') if not suffix else None,
                    error=metric_of(
                        ends[1]['parts'][part], f'cc_ece_{suffix}' if suffix else 'cc_ece'
                    ),
                )
            )
    return rows


def class_rows(run: WorkDir, check: Any | None = None) -> list[dict[str, Any]]:
    """What is known of each class; None where it is not.

    Args:
        run: The training.
        check: ``engine.boost_check.BoostCheck``, if there is one.
    """
    names = run.classes
    part, kind = main_part(run), iou_type(run)
    before, last = _class_ap_ends(run, part, kind)
    student = _class_ap_ends(run, 'student', kind)[1] if part == 'teacher' else None
    newest = run.refreshes[-1] if run.refreshes else {}
    audit = run.audit['classes'] if run.audit else [{}] * len(names)
    kept = kept_per_image(run)
    rows = []
    for c, name in enumerate(names):
        record = audit[c]
        boosted, plain = _judged(check, 'boosted', name), _judged(check, 'plain', name)
        row = dict(
            name=name,
            group=None if run.groups is None else GROUP_NAMES[run.groups[c]],
            labelled_images=record.get('labelled_images'),
            labelled_instances=record.get('labelled_instances'),
            before=_at(before, c),
            last=_at(last, c),
            student=_at(student, c),
            boost=_at(newest.get('boosts'), c, record.get('boost')),
            threshold=_at(newest.get('thresholds'), c, record.get('threshold')),
            kept=_at(kept, c),
            expected=_at(run.expected, c),
            damped=record.get('times_damped'),
            precision=boosted.get('precision'),
            judged_kept=boosted.get('count'),
            judged=boosted.get('judged'),
            plain_precision=plain.get('precision'),
            plain_kept=plain.get('count'),
            plain_judged=plain.get('judged'),
            history=[refresh['kept_per_image'][c] for refresh in run.refreshes],
        )
        row['change'] = _difference(row['last'], row['before'])
        row['ratio'] = (
            row['kept'] / row['expected'] if row['kept'] is not None and row['expected'] else None
        )
        rows.append(row)
    return rows


def kept_per_image(run: WorkDir) -> list[float] | None:
    """(C,) pseudo-labels kept per unlabelled image over the whole training."""
    if run.audit is not None:
        return [record['kept_per_image'] for record in run.audit['classes']]
    if not run.refreshes:
        return None
    images = np.array([refresh['images'] for refresh in run.refreshes], dtype=float)
    rates = np.array([refresh['kept_per_image'] for refresh in run.refreshes], dtype=float)
    return (images @ rates / max(images.sum(), 1.0)).tolist()


def ratios(run: WorkDir) -> np.ndarray:
    """(C, R) kept by expected pseudo-labels at each refresh, NaN where nothing is expected."""
    kept = np.array([refresh['kept_per_image'] for refresh in run.refreshes], dtype=float).T
    expected = np.asarray(run.expected, dtype=float)[:, None]
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(expected > 0, kept / expected, np.nan)


def changes(rows: Sequence[Mapping[str, Any]], count: int = 8) -> tuple[list, list]:
    """The classes that gained and those that lost most AP since ``before_and_last``."""
    known = [row for row in rows if row['change'] is not None]
    gained = sorted((r for r in known if r['change'] > 0), key=lambda r: -r['change'])
    lost = sorted((r for r in known if r['change'] < 0), key=lambda r: r['change'])
    return gained[:count], lost[:count]


def never_labelled(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Classes without any pseudo-label."""
    return [row['name'] for row in rows if row['kept'] == 0]


def boost_rows(check: Any) -> list[dict[str, Any]]:
    """Pseudo-labels without and with the boost, of all classes and of each group.

    Args:
        check: ``engine.boost_check.BoostCheck``.

    Returns:
        Of each group ``group``, ``objects``, ``plain_kept``, ``plain_judged`` (those of the kept
        ones that the annotations say something about: of a federated file often a small part),
        ``plain_right``, ``plain_precision`` (right by judged), the same as ``boosted_...``,
        ``more_kept``, ``more_judged``, ``more_right``, and ``cost``, the change of the precision
        (negative: it fell).
    """
    rows = []
    for group, prefix in (('all classes', ''), *((name, f'{name}_') for name in GROUP_NAMES)):
        if f'{prefix}pseudo_count' not in check.boosted:
            continue
        row: dict[str, Any] = dict(group=group, objects=check.boosted[f'{prefix}pseudo_objects'])
        for key, quality in (('plain', check.plain), ('boosted', check.boosted)):
            precision = quality[f'{prefix}pseudo_precision']
            recall = quality[f'{prefix}pseudo_recall']
            row[f'{key}_kept'] = quality[f'{prefix}pseudo_count']
            row[f'{key}_judged'] = quality[f'{prefix}pseudo_judged']
            row[f'{key}_right'] = round(recall * row['objects']) if row['objects'] else 0
            row[f'{key}_precision'] = precision if math.isfinite(precision) else None
        for what in ('kept', 'judged', 'right'):
            row[f'more_{what}'] = row[f'boosted_{what}'] - row[f'plain_{what}']
        row['cost'] = _difference(row['boosted_precision'], row['plain_precision'])
        rows.append(row)
    return rows


def _class_ap_ends(
    run: WorkDir, part: str | None, kind: str
) -> tuple[list[float] | None, list[float] | None]:
    """(C,) AP of ``before_and_last``, of the validations that wrote down their classes."""
    records = [
        record
        for record in run.validations
        if part in record['parts']
        and len(record['parts'][part].get('class_AP', {}).get(kind, ())) == len(run.classes)
    ]
    # Without names of classes, records without their AP fit as well.
    if not records or not run.classes:
        return None, None
    before, last = (
        None if r is None else r['parts'][part]['class_AP'][kind]
        for r in before_and_last(run, records)
    )
    return before, last


def _at(values: Sequence[float] | None, index: int, default: float | None = None) -> float | None:
    if values is None:
        return default
    value = values[index]
    return None if value is None or value < 0 or not math.isfinite(value) else value


def _judged(check: Any | None, which: str, name: str) -> dict[str, Any]:
    if check is None:
        return {}
    found = dict(getattr(check, which)['per_class'].get(name, {}))
    if not math.isfinite(found.get('precision', 0)):
        found['precision'] = None
    return found


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else value - base
