"""Bars, dots, crosses and shading of the class counts."""

import numpy as np
import pytest

from mmdet_softpl.reporting.class_axis import MAX_NAMES
from mmdet_softpl.reporting.class_counts import draw_class_counts
from mmdet_softpl.reporting.figure import save_figure

NAMES = ('few', 'many', 'none', 'some')
LABELED = (3, 500, 1, 40)
PSEUDO = (0, 900, 2, 0)
GROUPS = (0, 2, 0, 1)


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.lines}


def test_classes_are_sorted_and_never_labelled_ones_marked(tmp_path):
    figure = draw_class_counts(NAMES, LABELED, PSEUDO, GROUPS)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        'many',
        'some',
        'few',
        'none',
    ]
    assert axes.get_yscale() == 'log'
    (bars,) = axes.containers
    assert [bar.get_height() for bar in bars] == [500, 40, 3, 1]
    lines = lines_by_label(axes)
    assert lines['pseudo-labelled'].get_xydata().tolist() == [[0, 900], [3, 2]]
    crosses = lines['never pseudo-labelled (2 of 4)']
    assert crosses.get_xdata().tolist() == [1, 2]
    assert (crosses.get_ydata() > axes.get_ylim()[0]).all(), 'visible on the log axis'
    save_figure(figure, tmp_path / 'a.png')


def test_groups_are_shaded():
    axes = draw_class_counts(NAMES, LABELED, PSEUDO, GROUPS).axes[0]
    shades = [patch for patch in axes.patches if patch not in axes.containers[0].patches]
    # Rectangles, or polygons before matplotlib 3.9.
    outlines = {
        patch.get_label(): patch.get_patch_transform().transform(patch.get_path().vertices)
        for patch in shades
    }
    spans = {
        label: (corners[:, 0].min(), corners[:, 0].max()) for label, corners in outlines.items()
    }
    assert spans == {
        'frequent classes': (-0.5, 0.5),
        'common classes': (0.5, 1.5),
        'rare classes': (1.5, 3.5),
    }


def test_a_group_in_pieces_is_named_once():
    figure = draw_class_counts(('a', 'b', 'c'), (9, 8, 7), (1, 1, 1), (0, 1, 0))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(text for text in texts if 'classes' in text) == [
        'common classes',
        'rare classes',
    ]


def test_more_classes_than_names_fit(tmp_path):
    count = MAX_NAMES + 1
    figure = draw_class_counts(
        [str(i) for i in range(count)], np.arange(count), np.zeros(count), np.zeros(count, int)
    )
    axes = figure.axes[0]
    assert axes.get_xlabel() == 'classes, by labelled instances'
    assert len(lines_by_label(axes)[f'never pseudo-labelled ({count} of {count})'].get_xdata()) == (
        count
    )
    save_figure(figure, tmp_path / 'a.png')


@pytest.mark.parametrize('labeled', [[0], [5]])
def test_one_class_without_any_count(labeled, tmp_path):
    figure = draw_class_counts(['only'], labeled, [0], [2])
    save_figure(figure, tmp_path / 'a.png')
    assert 'never pseudo-labelled (1 of 1)' in lines_by_label(figure.axes[0])


def test_no_class(tmp_path):
    figure = draw_class_counts([], [], [], [])
    assert figure.axes[0].texts[0].get_text() == 'no classes'
    save_figure(figure, tmp_path / 'a.png')


def test_fractions_below_one_are_visible():
    axes = draw_class_counts(NAMES, LABELED, (0.01, 1, 1, 1), GROUPS).axes[0]
    assert axes.get_ylim()[0] < 0.01


def test_lengths_are_checked():
    with pytest.raises(ValueError, match='pseudo_counts has 3 rows, expected 4'):
        draw_class_counts(NAMES, LABELED, PSEUDO[:3], GROUPS)
