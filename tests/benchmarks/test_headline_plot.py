"""The picture of the main comparison shows every value and the means that the tables have."""

from __future__ import annotations

import pytest

from benchmarks.longtail.headline_plot import ROWS, draw_headline
from benchmarks.longtail.results import Table


def record(arm: str, seed: int, metric: str, value: float) -> dict:
    return dict(preset='cpu', arm=arm, seed=seed, split='test', metric=metric, value=value)


def test_dots_and_bars() -> None:
    values = {
        ('7-shipped', 'segm_AP'): [0.25, 0.27],
        ('7-shipped', 'rebalanced_segm_AP'): [0.26],
        ('0', 'segm_AP'): [0.18, 0.19, 0.2],
        ('0', 'segm_APr'): [0.1],
    }
    records = [
        record(arm, seed, metric, value)
        for (arm, metric), found in values.items()
        for seed, value in enumerate(found)
    ]
    left, right = draw_headline(Table(records, 'cpu')).axes
    for axes, name in ((left, 'segm_AP'), (right, 'segm_APr')):
        wanted = {key: 100 * sum(v) / len(v) for key, v in values.items() if key[1].endswith(name)}
        assert sorted(bar.get_width() for bar in axes.patches) == pytest.approx(
            sorted(wanted.values())
        )
        dots = sorted(x for line in axes.lines for x in line.get_xdata())
        assert dots == pytest.approx(sorted(100 * x for key in wanted for x in values[key]))
        assert {text.get_text() for text in axes.texts} == {
            f'{mean:.1f}' for mean in wanted.values()
        }
    assert [label.get_text() for label in left.get_yticklabels()] == list(ROWS.values())
    # Both of an arm in its row, which the axis counts downward, and as it is trained above.
    row = list(ROWS).index('7-shipped')
    trained, rebalanced = sorted(bar.get_y() + bar.get_height() / 2 for bar in left.patches)[1:]
    assert row - 0.5 < trained < row < rebalanced < row + 0.5
