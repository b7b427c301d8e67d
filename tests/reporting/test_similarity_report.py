"""The heat map puts families side by side and shows every class or cluster."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from mmdet_softpl.reporting.figure import any_script
from mmdet_softpl.reporting.similarity import cluster_order, draw_similarity


def families(count: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose mass stays in a family of ``size`` classes; the classes are shuffled."""
    member = np.random.default_rng(seed).permutation(np.arange(count) // size)
    similarity = (member[:, None] == member).astype(float)
    np.fill_diagonal(similarity, 0)
    similarity /= np.maximum(similarity.sum(1, keepdims=True), 1)
    return similarity, member


@pytest.mark.parametrize('count, size', [(12, 3), (60, 5), (300, 6)])
def test_families_stay_together(count: int, size: int) -> None:
    similarity, member = families(count, size)
    order, clusters = cluster_order(similarity, 10)
    assert sorted(order) == list(range(count))
    runs = 1 + np.count_nonzero(np.diff(member[order]))
    assert runs == count // size
    # Clusters are numbered along the order, and none swallows the rest.
    assert (np.diff(clusters[order]) >= 0).all() and clusters.max() < 10
    assert np.bincount(clusters).max() <= 3 * count / 10 + size


@pytest.mark.parametrize('count, rows', [(0, None), (1, 1), (2, 2), (12, 12), (101, None)])
def test_every_class_has_a_row_until_clusters_do(count: int, rows: int | None) -> None:
    similarity, _ = families(count, 4)
    figure = draw_similarity(similarity, [f'class {i}' for i in range(count)])
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    if rows is not None:
        assert sorted(labels) == sorted(f'class {i}' for i in range(count))
    if count > 100:
        shown = sum(int(label.split('+')[1]) + 2 if '+' in label else 2 for label in labels)
        assert 20 <= len(labels) <= 40 and abs(shown - count) <= len(labels)
    figure.canvas.draw()


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match='draw_similarity'):
        draw_similarity(np.eye(3), ['a'])


@pytest.mark.filterwarnings('ignore:no installed font')
@pytest.mark.parametrize('name', ['class', 'W' * 22, '\u4ea4\u901a\u6807\u5fd7\u724c' * 4])
@pytest.mark.parametrize('count', [1, 2, 5, 12, 101])
def test_no_text_runs_out_of_the_picture(count: int, name: str) -> None:
    similarity, _ = families(count, 4)
    figure = draw_similarity(similarity, [f'{name}{i}' for i in range(count)])
    axes = figure.axes[0]
    with any_script(figure):
        figure.canvas.draw()
        renderer = figure.canvas.get_renderer()
        titles = [text for text in axes.findobj(Text) if 'smoothed mass' in text.get_text()]
        assert len(titles) == 1
        for text in (*titles, *axes.get_xticklabels(), *axes.get_yticklabels()):
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0 and box.y0 >= 0, text.get_text()
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text.get_text()
