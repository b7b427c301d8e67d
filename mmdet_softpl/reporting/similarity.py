"""A class similarity as a heat map whose rows and columns are clustered.

Shape letters: **C** classes, **M** clusters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from mmdet_softpl.reporting.figure import FONT_SIZE, any_script, check_lengths, new_figure, say

# Up to it every cell has its number, up to MAX_ROWS every class its row; above, clusters do.
MAX_NUMBERED = 24
MAX_ROWS = 100
MAX_CLUSTERS = 40
# Branches of the tree for each cluster that is drawn.
_BRANCHES = 8
_NAME_LENGTH = 22
# Of a letter of a title, in sizes of its font; rather too large.
_LETTER_WIDTH = 0.62


def cluster_order(similarity: np.ndarray, max_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes in an order that puts similar ones side by side, and their clusters.

    Ward's linkage of the symmetric similarity profiles. The tree is cut into small branches, and
    neighbouring branches join until they have C / M classes: a plain cut into M leaves most
    classes in one cluster where families are many and small.

    Args:
        similarity: (C, C), rows sum to 1; the diagonal is ignored.
        max_clusters: M at most, >= 1.

    Returns:
        (C,) a permutation of the classes, and (C,) the cluster of each class in [0, M), numbered
        in that order.
    """
    from scipy.cluster.hierarchy import linkage, to_tree

    count = len(similarity)
    if count < 2:
        return np.arange(count), np.zeros(count, dtype=np.int64)
    profile = (similarity + similarity.T) / 2
    np.fill_diagonal(profile, 0)
    # As much of a class itself as of its nearest neighbour: siblings then nearly coincide.
    np.fill_diagonal(profile, profile.max(axis=1))
    profile /= np.maximum(np.linalg.norm(profile, axis=1, keepdims=True), 1e-12)
    root = to_tree(linkage(profile, method='ward', optimal_ordering=count <= MAX_ROWS))
    parts = [root]
    while len(parts) < min(_BRANCHES * max_clusters, count):
        largest = max(range(len(parts)), key=lambda i: parts[i].count)
        parts[largest : largest + 1] = [parts[largest].left, parts[largest].right]
    order = np.concatenate([part.pre_order() for part in parts]).astype(np.int64)
    clusters = np.empty(count, dtype=np.int64)
    number = filled = start = 0
    for part in parts:
        clusters[order[start : start + part.count]] = number
        start, filled = start + part.count, filled + part.count
        if filled >= count / max_clusters:
            number, filled = number + 1, 0
    return order, clusters


def draw_similarity(similarity: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Heat map of what smoothing hands from each class (row) to the others (columns).

    Up to 100 classes a row is a class; above, a row is a cluster of classes (40 at most) under
    the names of two of them, and a cell is the mean mass that its classes hand to the classes of
    the column's cluster.

    Args:
        similarity: (C, C), rows sum to 1.
        class_names: (C,).

    Raises:
        ValueError: the lengths differ.
    """
    check_lengths('draw_similarity', len(class_names), similarity=similarity)
    count = len(class_names)
    if count == 0:
        figure = new_figure(height=1)
        say(figure.subplots(), 'no classes')
        return figure
    order, clusters = cluster_order(similarity, MAX_CLUSTERS)
    if count <= MAX_ROWS:
        cells = similarity[np.ix_(order, order)]
        labels = [_short(class_names[i]) for i in order]
        title = 'Share of the smoothed mass that a class (row) hands to another (column), %'
    else:
        cells, labels = _between_clusters(similarity, class_names, order, clusters)
        title = (
            f'{count} classes in {len(labels)} clusters: share of the smoothed mass that the '
            'classes of a row hand to those of a column, %'
        )
    numbered = len(labels) <= MAX_NUMBERED
    size = FONT_SIZE - 1 if numbered else FONT_SIZE - 2
    inches = max(3.0, len(labels) * (0.42 if numbered else 0.14))
    margin = _widest(labels, size) + 0.15
    # It may go on above the bar. Few classes have no room for it on one line.
    lines = textwrap.wrap(title, int((inches + 0.6) / (FONT_SIZE / 72 * _LETTER_WIDTH)))
    figure, axes, beside = _square_axes(inches, margin, top=0.25 + 0.15 * len(lines))
    # Between clusters there is little against what stays inside; its root can still be seen.
    norm = PowerNorm(1.0 if count <= MAX_ROWS else 0.5, vmin=0, vmax=100 * max(cells.max(), 1e-9))
    image = axes.imshow(100 * cells, cmap='magma_r', norm=norm, interpolation='nearest')
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=size, parse_math=False)
    axes.tick_params(length=0, pad=2)
    axes.set_title('\n'.join(lines), fontsize=FONT_SIZE, loc='left')
    axes.spines[:].set_visible(False)
    if numbered:
        _number(axes, 100 * cells)
    bar = figure.colorbar(image, cax=beside)
    bar.ax.tick_params(labelsize=size)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _square_axes(inches: float, margin: float, top: float) -> tuple[Figure, Axes, Axes]:
    """A square of that size with room for labels at the left and below, and a narrow bar.

    Args:
        inches: Of a side.
        margin: For the labels, in inches.
        top: For the title, in inches.
    """
    width, height = margin + inches + 0.7, margin + inches + top
    figure = new_figure(height=height, width=width)
    # Labels as long as these make the automatic layout cut them off.
    figure.set_layout_engine('none')
    left, bottom, side = margin / width, margin / height, inches
    axes = figure.add_axes((left, bottom, side / width, side / height))
    bar_left = left + (side + 0.12) / width
    bar = (bar_left, bottom + side / height * 0.3, 0.14 / width, side / height * 0.4)
    return figure, axes, figure.add_axes(bar)


def _between_clusters(
    similarity: np.ndarray, names: Sequence[str], order: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """(M, M) mean mass from cluster to cluster, and M labels."""
    count = int(clusters.max()) + 1
    member = np.eye(count)[clusters]
    mean = member / member.sum(axis=0)
    cells = mean.T @ similarity @ member
    labels = []
    for m in range(count):
        inside = np.array([i for i in order if clusters[i] == m])
        central = similarity[np.ix_(inside, inside)].sum(axis=0)
        best = [_short(names[i], 14) for i in inside[np.argsort(-central, kind='stable')[:2]]]
        more = f' +{len(inside) - 2}' if len(inside) > 2 else ''
        labels.append(', '.join(best) + more)
    return cells, labels


def _number(axes: Axes, cells: np.ndarray) -> None:
    top = cells.max()
    for (row, column), value in np.ndenumerate(cells):
        if value >= 0.5:
            axes.text(
                column,
                row,
                f'{value:.0f}',
                ha='center',
                va='center',
                fontsize=FONT_SIZE - 1.5,
                color='white' if value > 0.5 * top else 'black',
            )


def _widest(labels: Sequence[str], size: float) -> float:
    """Inches that the widest one takes, measured: East Asian names are twice as wide as others."""
    figure = new_figure(height=1, width=1)
    texts = [figure.text(0, 0, label, fontsize=size, parse_math=False) for label in labels]
    with any_script(figure, drawn=False):
        return max(text.get_window_extent().width for text in texts) / figure.dpi


def _short(name: str, length: int = _NAME_LENGTH) -> str:
    return name if len(name) <= length else name[: length - 1] + '…'
