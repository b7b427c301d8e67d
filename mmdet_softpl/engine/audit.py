"""The audit of a training: which classes were boosted, and what they got.

Shape legend: C foreground classes, B confidence bins.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmdet_softpl.datasets.class_statistics import ClassStatistics
from mmdet_softpl.functional import GROUP_NAMES, uncalibrated
from mmdet_softpl.models.class_state import ClassState


def build_audit(
    statistics: ClassStatistics,
    state: ClassState,
    *,
    total_kept: Tensor,
    total_images: float,
    damped: Tensor,
    labelled_rate: Tensor,
    labeled_ann_file: str,
) -> dict[str, Any]:
    """Collect the audit as plain Python values.

    Args:
        statistics: Of the labelled set.
        state: With final boosts, thresholds and reliability.
        total_kept: (C,) pseudo-labels kept over the whole training.
        total_images: Unlabelled images labelled over the whole training.
        damped: (C,) refreshes at which a class was damped.
        labelled_rate: (C,) labelled instances per labelled image.
        labeled_ann_file: Source of the frequencies.

    Returns:
        ``classes`` (a list of records), ``groups`` and totals. ``labelled_precision`` is the
        share of correct ones among the teacher's detections above the threshold on labelled
        images (None where there was none).
    """
    images = max(total_images, 1.0)
    precision = _precision_above(state.reliability.cpu(), state.thresholds.cpu())
    groups = state.groups.tolist()
    records: list[dict[str, Any]] = []
    for c, name in enumerate(statistics.classes):
        records.append(
            dict(
                name=name,
                group=GROUP_NAMES[groups[c]],
                labelled_images=int(statistics.image_counts[c]),
                labelled_instances=int(statistics.instance_counts[c]),
                boost=round(float(state.boosts[c]), 4),
                threshold=round(float(state.thresholds[c]), 4),
                kept=int(total_kept[c]),
                kept_per_image=float(total_kept[c]) / images,
                expected_per_image=float(labelled_rate[c]),
                times_damped=int(damped[c]),
                labelled_precision=precision[c],
            )
        )
    summary = {
        name: dict(
            classes=sum(r['group'] == name for r in records),
            kept=sum(r['kept'] for r in records if r['group'] == name),
            never_labelled=[r['name'] for r in records if r['group'] == name and not r['kept']],
        )
        for name in GROUP_NAMES
    }
    return dict(
        labeled_ann_file=labeled_ann_file,
        frequency_source=statistics.source,
        unlabelled_images_seen=int(total_images),
        groups=summary,
        classes=records,
    )


def _precision_above(reliability: Tensor, thresholds: Tensor) -> list[float | None]:
    """(C,) precision of the detections in the bins whose centre is above the threshold."""
    count, correct, _ = reliability
    above = uncalibrated(*count.shape) > thresholds[:, None]
    counts, hits = (count * above).sum(1), (correct * above).sum(1)
    return [
        round(float(hit / n), 4) if n > 0 else None for hit, n in zip(hits, counts, strict=True)
    ]
