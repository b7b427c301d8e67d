"""Draws docs/images/data_flow.png: `python tools/draw_data_flow.py` in the environment."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

OUT = Path(__file__).resolve().parents[1] / 'docs' / 'images' / 'data_flow.png'
LABELLED, UNLABELLED, NETWORK, OURS = '#dbe9f6', '#fdebd0', '#e8e8e8', '#d9f0d9'
WIDTH, HEIGHT = 20.0, 9.6
# Name: (x, y) of the middle, width, colour, text.
BOXES = {
    'labelled': (1.9, 8.4, 3.3, LABELLED, 'labelled image,\nobjects pasted in'),
    'sup': (6.6, 8.4, 3.4, NETWORK, 'student'),
    'sup_loss': (11.9, 8.4, 3.8, OURS, 'loss, smoothed toward\nsimilar classes'),
    'prototypes': (17.9, 8.4, 3.6, OURS, 'prototypes:\nmean features of a class'),
    'weak': (
        1.9,
        5.0,
        3.3,
        UNLABELLED,
        'unlabelled image,\nlabelled objects pasted in:\nweak view (and mirror)',
    ),
    'teacher': (6.6, 5.0, 3.4, NETWORK, 'teacher: moving\naverage of the student'),
    'boost': (11.9, 5.0, 3.8, OURS, 'boost of rare classes,\nprototype evidence, NMS'),
    'name': (17.9, 5.0, 3.6, OURS, 'threshold of each class:\nwhich labels are kept'),
    'calibrate': (17.9, 1.5, 3.6, OURS, 'calibrated soft labels\nof every object'),
    'strong': (1.9, 1.5, 3.3, UNLABELLED, 'the same image,\nstrong view'),
    'student': (6.6, 1.5, 3.4, NETWORK, 'student'),
    'losses': (11.9, 1.5, 3.8, OURS, 'class, box and mask loss\non the same RoIs'),
}
# From, to, where each begins and ends, text.
ARROWS = [
    ('labelled', 'sup', 'right', 'left', ''),
    ('sup', 'sup_loss', 'right', 'left', ''),
    ('prototypes', 'sup_loss', 'left', 'right', 'similarity'),
    ('weak', 'teacher', 'right', 'left', ''),
    ('teacher', 'boost', 'right', 'left', 'scores'),
    ('prototypes', 'boost', 'bottom', 'top', ''),
    ('boost', 'name', 'right', 'left', ''),
    ('name', 'calibrate', 'bottom', 'top', 'what the teacher gets right\non labelled images'),
    ('calibrate', 'losses', 'left', 'right', 'homography'),
    ('strong', 'student', 'right', 'left', ''),
    ('student', 'losses', 'right', 'left', ''),
    ('sup', 'teacher', 'bottom', 'top', 'moving average'),
    ('student', 'teacher', 'top', 'bottom', 'moving average'),
]
BOX_HEIGHT = 1.5


def draw() -> Figure:
    """The figure."""
    figure = Figure(figsize=(WIDTH / 1.7, HEIGHT / 1.7), dpi=110, layout='constrained')
    axes = figure.add_subplot()
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect='equal')
    axes.axis('off')
    for x, y, width, colour, text in BOXES.values():
        corner = (x - width / 2, y - BOX_HEIGHT / 2)
        style = 'round,pad=0,rounding_size=0.15'
        axes.add_patch(
            FancyBboxPatch(corner, width, BOX_HEIGHT, boxstyle=style, fc=colour, ec='#555555')
        )
        axes.text(x, y, text, ha='center', va='center', fontsize=9.5)
    for first, last, leaves, enters, text in ARROWS:
        start, end = side(first, leaves), side(last, enters)
        style = dict(arrowstyle='-|>', mutation_scale=13, color='#444444', shrinkA=0, shrinkB=0)
        axes.add_patch(FancyArrowPatch(start, end, **style))
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        upright = start[0] == end[0]
        axes.text(
            middle[0] - 0.12 * upright,
            middle[1] + 0.12 * (not upright),
            text,
            ha='right' if upright else 'center',
            va='center' if upright else 'bottom',
            fontsize=8,
            style='italic',
        )
    return figure


def side(name: str, which: str) -> tuple[float, float]:
    """Middle of a side of a box."""
    x, y, width, _, _ = BOXES[name]
    dx = {'left': -width / 2, 'right': width / 2}.get(which, 0.0)
    dy = {'bottom': -BOX_HEIGHT / 2, 'top': BOX_HEIGHT / 2}.get(which, 0.0)
    return x + dx, y + dy


if __name__ == '__main__':
    figure = draw()
    FigureCanvasAgg(figure).print_png(str(OUT))
    print(OUT)
