"""What a refresh of the pseudo-labeler did, for the log, the visualizer and the report.

Shape legend: C foreground classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from mmdet_softpl.functional import GROUP_NAMES
from mmdet_softpl.models.class_state import ClassState
from mmdet_softpl.run_records import append_record


def refresh_scalars(
    state: ClassState, kept_per_image: Tensor, total_kept: Tensor
) -> dict[str, float]:
    """Mean threshold and boost of each group, labels kept per image, classes never labelled.

    Args:
        state: After the refresh.
        kept_per_image: (C,) labels kept since the refresh before.
        total_kept: (C,) labels kept in the whole training.

    Returns:
        ``pseudo/NAME_GROUP`` to value, for the groups that have a class.
    """
    never = total_kept == 0
    values = {}
    for index, name in enumerate(GROUP_NAMES):
        members = state.groups == index
        if not bool(members.any()):
            continue
        values[f'pseudo/threshold_{name}'] = float(state.thresholds[members].mean())
        values[f'pseudo/boost_{name}'] = float(state.boosts[members].mean())
        values[f'pseudo/kept_per_image_{name}'] = float(kept_per_image[members].sum())
        values[f'pseudo/never_labelled_{name}'] = float(never[members].sum())
    return values


def write_refresh(
    path: Path,
    state: ClassState,
    *,
    head: dict[str, Any],
    iteration: int,
    num_images: float,
    kept_per_image: Tensor,
    labelled_rate: Tensor,
) -> None:
    """Append a refresh to the file that the report reads, after a line about the run.

    Args:
        path: The file; made if it is not there.
        state: After the refresh.
        head: Plain values about the run: ``start_iter``, ``classes``.
        iteration: Iterations done.
        num_images: Unlabelled images since the refresh before.
        kept_per_image: (C,) labels kept since then.
        labelled_rate: (C,) labelled instances per labelled image.
    """
    if not path.is_file():
        groups = state.groups.tolist()
        expected = _rounded(labelled_rate, 5)
        append_record(path, dict(head, groups=groups, expected_per_image=expected))
    append_record(
        path,
        dict(
            iter=iteration,
            images=round(num_images),
            kept_per_image=_rounded(kept_per_image, 5),
            thresholds=_rounded(state.thresholds, 4),
            boosts=_rounded(state.boosts, 4),
        ),
    )


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
