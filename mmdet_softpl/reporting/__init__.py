"""Pictures and tables of what the labeller and the models did."""

from mmdet_softpl.reporting.class_counts import draw_class_counts
from mmdet_softpl.reporting.figure import save_figure
from mmdet_softpl.reporting.pseudo_labels import (
    draw_pseudo_labels,
    draw_view_pair,
)
from mmdet_softpl.reporting.reliability import draw_reliability
from mmdet_softpl.reporting.table import metrics_table

__all__ = [
    'draw_class_counts',
    'draw_pseudo_labels',
    'draw_reliability',
    'draw_view_pair',
    'metrics_table',
    'save_figure',
]
