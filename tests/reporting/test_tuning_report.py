"""The picture of a search: something to see, also where there is next to nothing to show."""

from __future__ import annotations

import numpy as np
import pytest

from mmdet_softpl.reporting.tuning import draw_tuning


@pytest.mark.parametrize('count', [1, 60])
def test_draw_tuning(count: int) -> None:
    rng = np.random.default_rng(0)
    trials = [dict(proxy=float(p), learned_precision=float(p), learned_recall=float(r)) for p, r in
              rng.uniform(0, 1, (count, 2))]  # fmt: skip
    importances = dict(alpha=0.2, boost_gamma=0.7) if count > 1 else {}
    figure = draw_tuning(importances, trials, [True] * count, trials[0], trials[-1], 'verdict')
    assert 'verdict' in [text.get_text() for text in figure.texts]
    bars, course, trade = figure.axes
    names = [label.get_text() for label in bars.get_yticklabels()]
    # The most important one comes first.
    assert names == (['boost_gamma', 'alpha'] if importances else [])
    best = course.lines[1].get_ydata()
    np.testing.assert_allclose(best, np.maximum.accumulate([t['proxy'] for t in trials]))
    marks = [line for line in trade.lines if line.get_label() in ('config', 'chosen')]
    assert len(marks) == 2
    assert marks[1].get_xdata()[0] == trials[-1]['learned_recall']
    figure.canvas.draw()
