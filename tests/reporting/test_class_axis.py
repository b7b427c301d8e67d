"""Group backgrounds and names of the axis of classes."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_softpl.reporting.class_axis import MAX_NAMES, name_classes, shade_groups
from mmdet_softpl.reporting.figure import new_figure


def new_axes():
    return new_figure(height=2.0).subplots()


def test_one_span_a_run_and_one_label_a_group() -> None:
    axes = new_axes()
    shade_groups(axes, np.array([2, 2, 1, 0, 1]))
    # Polygons in older matplotlib, rectangles in newer: both have a path in data coordinates.
    boxes = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    found = [(round(box.x0, 6), round(box.x1, 6)) for box in boxes]
    assert found == [(-0.5, 1.5), (1.5, 2.5), (2.5, 3.5), (3.5, 4.5)]
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ['frequent classes', 'common classes', 'rare classes']


def test_no_class() -> None:
    axes = new_axes()
    shade_groups(axes, np.zeros(0, dtype=int))
    assert not axes.patches


def test_names_are_text_and_cut() -> None:
    axes = new_axes()
    name_classes(axes, ['$x$', 'y' * 30], 'classes')
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ['$x$', 'y' * 23 + '…']
    assert not any(label.get_parse_math() for label in axes.get_xticklabels())
    assert axes.get_xlim() == (-0.5, 1.5) and axes.get_xlabel() == ''


@pytest.mark.parametrize(('count', 'label'), [(MAX_NAMES, ''), (MAX_NAMES + 1, 'classes')])
def test_too_many_names_are_left_out(count: int, label: str) -> None:
    axes = new_axes()
    name_classes(axes, [str(i) for i in range(count)], 'classes')
    assert axes.get_xlabel() == label
