"""Pictures of data: what is drawn, by the artists."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from mmdet_softpl.reporting.data_overview import draw_class_curve, draw_image_sizes
from mmdet_softpl.reporting.figure import save_figure


def bars(axes: Axes) -> list[float]:
    """Heights of the bars, without the shades of the groups."""
    return [bar.get_height() for container in axes.containers for bar in container]


def test_class_curve(tmp_path) -> None:
    names = ['b$x$', 'a', 'a very long name of a class indeed', 'none']
    figure = draw_class_curve(names, [5, 200, 50, 0], [0, 2, 1, 0], [3, 4, 0, 1], [0.4, 9, 2, 0])
    (axes,) = figure.axes
    assert bars(axes) == [200, 50, 5, 0]
    validation, expected = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal(validation, [4, np.nan, 3, 1])
    np.testing.assert_array_equal(expected, [9, 2, 0.4, np.nan])
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels[0] == 'a' and labels[1].endswith('…') and labels[2] == 'b$x$'
    assert axes.get_ylim()[0] <= 0.4
    assert save_figure(figure, tmp_path / 'x.png').stat().st_size > 1000


@pytest.mark.parametrize('count', [0, 1, 200])
def test_class_curve_of_any_size(count: int) -> None:
    figure = draw_class_curve([f'c{i}' for i in range(count)], [1] * count, [0] * count)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert bars(axes) == [1] * count
    assert [text.get_text() for text in axes.texts] == ([] if count else ['no classes'])


def test_nothing_counted() -> None:
    figure = draw_class_curve(['a'], [0], [0], [0], [0.0])
    figure.canvas.draw()
    (axes,) = figure.axes
    assert bars(axes) == [0]
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], [[np.nan]] * 2)


@pytest.mark.parametrize('key', ['image_counts', 'groups', 'validation_counts', 'expected_labels'])
def test_lengths(key: str) -> None:
    columns = dict(image_counts=[1], groups=[0], validation_counts=[1], expected_labels=[1.0])
    with pytest.raises(ValueError, match=key):
        draw_class_curve(['a'], **{**columns, key: [1, 1]})


def test_image_sizes() -> None:
    many = [(100 + i, 50) for i in range(12_000)]
    figure = draw_image_sizes({'labelled': [(640, 480), (480, 640)], 'none': [], 'many': many})
    (axes,) = figure.axes
    _, labelled, drawn = axes.lines
    assert labelled.get_xdata().tolist() == [640, 480]
    assert labelled.get_label() == 'labelled (2)' and drawn.get_label() == 'many (12,000)'
    assert len(drawn.get_xdata()) <= 5000
    assert axes.get_xlim()[1] > 12_099
    figure = draw_image_sizes({'labelled': []})
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ['no image']
