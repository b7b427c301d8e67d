"""How results move with the images that are labelled, and with the length of a training.

Shape letter: **S** numbers of labelled images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmdet_softpl.evaluation.annotation_return import ABOVE, WITHIN, equivalent_labels

from .arms import ARMS as EVERY_ARM
from .arms import FULL_METHOD
from .presets import PRESETS
from .results import ONE_HOT_TEACHER, SUPERVISED, Record, Table, paired_difference, spread
from .tables import difference, markdown, percent

# With the weight of unlabelled images that the shipped configs have.
SHIPPED = '7-unsup_weight-1'
METHODS = (FULL_METHOD, SHIPPED)
ARMS = (SUPERVISED, ONE_HOT_TEACHER, *METHODS)
METRICS = {'AP': 'segm_AP', 'APr': 'segm_APr'}
COLUMNS = METRICS | {
    'APc': 'segm_APc',
    'APf': 'segm_APf',
    'AP, rebalanced': 'rebalanced_segm_AP',
    'APr, rebalanced': 'rebalanced_segm_APr',
}


class Variations:
    """A preset and those that vary it, in the seeds of the latter.

    Args:
        base: Name of the preset.
        names: Of the presets that have results.
        records: Of all of them.
    """

    def __init__(self, base: str, names: Iterable[str], records: Sequence[Record]) -> None:
        mine = [name for name in names if PRESETS[name].varies == base]
        self.base = base
        self.tables = {name: Table(records, name) for name in (base, *mine)}
        drawn = [name for name in mine if PRESETS[name].draw is not None]
        seeds = {seed for name in drawn for seed in self.tables[name].seeds}
        self.by_seed = {
            (name, arm, metric): {
                seed: value
                for seed, value in self.tables[name].by_seed(arm, 'test', key).items()
                if seed in seeds
            }
            for name in (base, *drawn)
            for arm in ARMS
            for metric, key in METRICS.items()
        }
        self.names = sorted(
            (n for n in (base, *drawn) if any(self.by_seed[n, arm, 'AP'] for arm in ARMS)),
            key=lambda name: (PRESETS[name].images['train'], self.at_least(name)),
        )
        self.seeds = sorted(seeds)

    @property
    def is_empty(self) -> bool:
        """Whether no other images are labelled anywhere."""
        return len(self.names) < 2

    @staticmethod
    def at_least(name: str) -> int:
        """Labelled images that a class has at least, where the draw saw to it; else 1."""
        draw = PRESETS[name].draw
        return draw.min_images_per_class if draw else 1

    def title(self, name: str) -> str:
        """What is labelled: ``225 of 4,500 (5 %)``."""
        images = PRESETS[name].images
        labeled, pool = images['train'], images['train'] + images['unlabeled']
        text = f'{labeled:,} of {pool:,} ({labeled / pool:.0%})'
        if self.at_least(name) > 1:
            text += f', each class in {self.at_least(name)} or more'
        if PRESETS[name].max_iters != PRESETS[self.base].max_iters:
            text += f', {PRESETS[name].max_iters:,} iterations'
        return text

    def curve(self, arm: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of labelled images (S,), ascending, and mean AP in percent (S,)."""
        points = {
            PRESETS[name].images['train']: spread(self.by_seed[name, arm, metric].values())
            for name in self.names
            if self.at_least(name) == 1
        }
        known = {count: 100 * found.mean for count, found in points.items() if found.n}
        return np.array(list(known)), np.array(list(known.values()))


def variation_lines(found: Variations) -> list[str]:
    """The tables of a preset's variations, and what the full method is worth in images."""
    if found.is_empty:
        return further_arms(found)
    rows = []
    for name in found.names:
        cells = [found.title(name)]
        for arm in ARMS:
            values = [spread(found.by_seed[name, arm, metric].values()) for metric in METRICS]
            cells.append(' / '.join(percent(value) for value in values))
        for arm in METHODS:
            for metric in METRICS:
                pair = [found.by_seed[name, other, metric] for other in (arm, SUPERVISED)]
                cells.append(difference(paired_difference(*pair)))
        rows.append(cells)
    head = ['labelled images', *(f'arm {arm}: AP / APr' for arm in ARMS)]
    head += [f'{metric}, {arm} - {SUPERVISED}' for arm in METHODS for metric in METRICS]
    seeds = ', '.join(map(str, found.seeds))
    return [
        *markdown(head, rows),
        '',
        f'Seed{"s" * (len(found.seeds) > 1)} {seeds}; the same images, iterations and evaluation; '
        'the images that are not labelled are the unlabelled ones. Rare, common and frequent '
        'classes are those of the preset in every row.',
        *missing_arms(found),
        *worth(found),
        *further_arms(found),
    ]


def missing_arms(found: Variations) -> list[str]:
    """Which of a variation's own arms have no result yet."""
    missing = [
        f'arm {arm} of {found.title(name)}'
        for name in found.names
        if name != found.base
        for arm in PRESETS[name].arms
        if not found.by_seed[name, arm, 'AP']
    ]
    return ['', f'**Missing:** {"; ".join(missing)}.'] if missing else []


def further_arms(found: Variations) -> list[str]:
    """All arms of each variation that has more than ``ARMS``, beside the same runs of the base."""
    lines = []
    base = found.tables[found.base]
    for name, table in found.tables.items():
        arms = [*table.arms, *table.knob_arms]
        if name == found.base or not set(arms) - set(ARMS):
            continue
        rows = []
        for arm in arms:
            mine = {key: table.by_seed(arm, 'test', key) for key in COLUMNS.values()}
            seeds = mine['segm_AP'].keys()
            cells = [percent(spread(values.values())) for values in mine.values()]
            for key in METRICS.values():
                theirs = base.by_seed(arm, 'test', key)
                cells.append(percent(spread(theirs[seed] for seed in seeds & theirs.keys())))
            title = EVERY_ARM[arm].title
            rows.append([arm, title, ', '.join(map(str, sorted(seeds))), *cells])
        head = ['arm', '', 'seeds', *COLUMNS]
        head += [f'{metric}, {found.title(found.base)}' for metric in METRICS]
        lines += ['', f'{found.title(name)}, all arms:', '', *markdown(head, rows)]
    return lines


def worth(found: Variations) -> list[str]:
    """A sentence for each metric: as good as how many labelled images without the others."""
    lines = []
    for metric in METRICS:
        counts, aps = found.curve(SUPERVISED, metric)
        if len(counts) < 2:
            continue
        for arm in METHODS:
            parts = []
            for count, ap in zip(*found.curve(arm, metric), strict=True):
                number, place = equivalent_labels(counts, aps, ap)
                word = {WITHIN: 'about', ABOVE: 'more than'}.get(place, 'fewer than')
                parts.append(f'{count:,} as {word} {number:,.0f}')
            if parts:
                lines += [
                    '',
                    f'By {metric}, labelled images with arm {arm} are as good as these with arm '
                    f'{SUPERVISED}: {", ".join(parts)}.',
                ]
    return lines
