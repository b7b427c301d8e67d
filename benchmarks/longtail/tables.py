"""The tables of ``RESULTS.md``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mmdet_softpl.functional import GROUP_NAMES as GROUPS

from .arms import ARMS, FULL_METHOD, SHIPPED_SUPERVISED
from .knobs import KNOBS
from .results import (
    ONE_HOT_TEACHER,
    SUPERVISED,
    Difference,
    Spread,
    Table,
    knob_results,
    mean_ratio,
    paired_difference,
    spread,
)
from .runs import Runs

# Arms with the true labels of all images, and those of their head without.
TRUE_LABELS = {'0-true': SUPERVISED, '0-true-normed': SHIPPED_SUPERVISED}
AP_COLUMNS = ('AP', 'AP50', 'APr', 'APc', 'APf')
# The same figure in two ways, of which the second is not told where it is the first.
FIXED = {'AP': 'AP_fixed', 'APr': 'APr_fixed'}


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    return [
        f'| {" | ".join(head)} |',
        '|---' * len(head) + '|',
        *(f'| {" | ".join(row)} |' for row in rows),
    ]


def _titled(arm: str) -> list[str]:
    return [arm, ARMS[arm].title]


def _by_arm(
    table: Table,
    columns: Sequence[tuple[str, str, str]],
    show: Callable[[Spread], str],
    arms: Sequence[str] | None = None,
) -> list[str]:
    """A row for each arm (None: those that turn no knob); columns are (head, split, metric)."""
    rows = []
    for arm in table.arms if arms is None else arms:
        seeds = table.by_seed(arm, 'test', 'segm_AP')
        found = [spread(table.by_seed(arm, split, metric).values()) for _, split, metric in columns]
        partly = [f' ({v.n} of {len(seeds)})' if 0 < v.n < len(seeds) else '' for v in found]
        cells = [show(v) + note for v, note in zip(found, partly, strict=True)]
        rows.append([*_titled(arm), ', '.join(map(str, seeds)), *cells])
    return markdown(['arm', '', 'seeds', *(head for head, _, _ in columns)], rows)


def percent(value: Spread) -> str:
    """AP in percent; LVIS writes -1 where there is nothing to find."""
    if value.n == 0 or value.mean < 0:
        return '-'
    return f'{100 * value.mean:.1f}' + (
        f' ± {100 * value.deviation:.1f}' if math.isfinite(value.deviation) else ''
    )


def decimal(value: Spread) -> str:
    """Three digits."""
    if value.n == 0:
        return '-'
    return f'{value.mean:.3f}' + (
        f' ± {value.deviation:.3f}' if math.isfinite(value.deviation) else ''
    )


def ap_table(table: Table, split: str, kind: str, arms: Sequence[str] | None = None) -> list[str]:
    """AP by arm (None: those that turn no knob)."""
    columns = [(c, split, f'{kind}_{c}') for c in AP_COLUMNS]
    if not fixed_is_plain(table, split, kind):
        columns += [(f'{c} Fixed', split, f'{kind}_{fixed}') for c, fixed in FIXED.items()]
    return _by_arm(table, columns, percent, arms)


def fixed_is_plain(table: Table, split: str, kind: str) -> bool:
    """Whether AP-Fixed (arXiv 2102.01066) is AP in every run, as with few detections an image."""
    return all(
        table.by_seed(arm, split, f'{kind}_{fixed}') == table.by_seed(arm, split, f'{kind}_{plain}')
        for arm in (*table.arms, *table.knob_arms)
        for plain, fixed in FIXED.items()
    )


def difference(value: Difference) -> str:
    """Points of AP with the interval; bold where the interval leaves out 0."""
    if value.n == 0:
        return '-'
    text = f'{100 * value.mean:+.1f}'
    if not math.isfinite(value.low):
        return f'{text} (1 seed)'
    text += f' [{100 * value.low:+.1f}, {100 * value.high:+.1f}]'
    return f'**{text}**' if value.low > 0 or value.high < 0 else text


def difference_table(table: Table) -> list[str]:
    """AP and APr against the arm before, arm 0 and arm 3; bold: the interval leaves out 0."""
    rows = []
    for arm in table.arms:
        previous = ARMS[arm].previous
        cells = [arm, previous or '-']
        for other in (previous, SUPERVISED, ONE_HOT_TEACHER):
            for metric in ('segm_AP', 'segm_APr'):
                pair = Difference(math.nan, math.nan, math.nan, 0)
                if other is not None and other != arm:
                    pair = paired_difference(
                        table.by_seed(arm, 'test', metric), table.by_seed(other, 'test', metric)
                    )
                cells.append(difference(pair))
        rows.append(cells)
    head = [
        'arm',
        'before',
        'AP - before',
        'APr - before',
        'AP - 0',
        'APr - 0',
        'AP - 3',
        'APr - 3',
    ]
    return [*markdown(head, rows), '', 'Bold: the interval leaves out 0.']


def sensitivity_table(table: Table, arm: str) -> list[str]:
    """AP and APr on ``tune`` by knob of an arm and value, and against it in the same seeds."""
    found = [knob_results(table, arm, metric) for metric in ('segm_AP', 'segm_APr')]
    rows = []
    for knob, values in found[0].items():
        default = KNOBS[arm][knob].default
        for value in values:
            results = [by_knob[knob][value] for by_knob in found]
            cells = [percent(spread(by_seed.values())) for by_seed in results]
            for by_seed, by_knob in zip(results, found, strict=True):
                pair = paired_difference(by_seed, by_knob[knob][default])
                cells.append('-' if value == default else difference(pair))
            rows.append([knob, f'{value:g}' + f' (arm {arm})' * (value == default), *cells])
    return markdown(['knob', 'value', 'AP', 'APr', 'AP - default', 'APr - default'], rows)


def calibration_table(table: Table) -> list[str]:
    """Errors of the test detections, of the pseudo-labels and of all objects seen."""
    columns = [('ECE', 'test', 'ece'), ('class-cond.', 'test', 'cc_ece')]
    columns += [(name, 'test', f'cc_ece_{name[0]}') for name in GROUPS]
    columns += [
        ('pseudo-labels: ECE', 'unlabeled_all', 'pseudo_ece'),
        ('class-cond.', 'unlabeled_all', 'pseudo_cc_ece'),
        ('by chance', 'unlabeled_all', 'pseudo_cc_ece_chance'),
        ('objects: class-cond., scores', 'unlabeled_all', 'object_raw_cc_ece'),
        ('by chance', 'unlabeled_all', 'object_raw_cc_ece_chance'),
        ('confidences', 'unlabeled_all', 'object_cc_ece'),
        ('by chance', 'unlabeled_all', 'object_cc_ece_chance'),
    ]
    return [
        *_by_arm(table, columns, decimal),
        '',
        'The first five columns are of the detections on `test` (score 0.05 and more); the others '
        "of the confidences of the teacher's labels on all unlabelled images: those it keeps, then "
        'the surest label of every object, there also of the scores that thresholds act on, boost '
        'included. Class-conditional: mean over the classes with 10 or more. By chance: '
        'what perfectly calibrated labels of the same confidences would show there.',
    ]


def pseudo_table(table: Table, about: dict[str, Any]) -> list[str]:
    """Number, precision and recall of the kept pseudo-labels by group."""
    rows = []
    for arm in table.arms:

        def value(metric: str, digits: int, arm: str = arm) -> str:
            found = spread(table.by_seed(arm, 'unlabeled', metric).values())
            return f'{found.mean:.{digits}f}' if found.n else '-'

        seeds = table.by_seed(arm, 'unlabeled', 'pseudo_per_image')
        cells = [arm, ', '.join(map(str, seeds)) or '-', value('pseudo_per_image', 2)]
        for group in GROUPS:
            cells += [
                f'{value(f"{group}_pseudo_per_image", 3)} / '
                f'{_ratio(pooled_precision(table, arm, "unlabeled", group), 2)}'
                f' / {value(f"{group}_pseudo_recall", 2)}'
            ]
        cells += [
            percent(spread(table.by_seed(arm, 'unlabeled', 'pseudo_never_labelled').values())),
            value('never_labelled_in_training', 1),
            value('classes_labelled_by_3_alone', 1),
        ]
        rows.append(cells)
    head = ['arm', 'seeds', 'per image', *(f'{g}: per image / precision / recall' for g in GROUPS)]
    head += ['% classes without', 'classes without in training', 'classes that 3 labels alone']
    return [
        *markdown(head, rows),
        '',
        f'The last teacher on a fixed sample of {about["pseudo_images"]} unlabelled images with '
        'its last thresholds, against the hidden labels (box IoU 0.5). A supervised arm labels '
        'what its moving average would label at its threshold.',
        '',
        *confidence_table(table),
        '',
        'The same on all unlabelled images, for the seeds named; a confidence above the precision '
        'is too sure.',
    ]


def pooled_precision(table: Table, arm: str, split: str, group: str) -> float:
    """Right labels over kept ones, of all seeds together; NaN where none was kept."""
    precision = table.by_seed(arm, split, f'{group}_pseudo_precision')
    kept = table.by_seed(arm, split, f'{group}_pseudo_per_image')
    number = sum(kept[seed] for seed in precision)
    right = sum(kept[seed] * value for seed, value in precision.items())
    return right / number if number else math.nan


def confidence_table(table: Table) -> list[str]:
    """Mean confidence of the kept labels beside their precision, on all unlabelled images."""
    rows = []
    for arm in table.arms:
        seeds = table.by_seed(arm, 'unlabeled_all', 'pseudo_per_image')
        if not seeds:
            continue
        cells = [arm, ', '.join(map(str, seeds)), f'{spread(seeds.values()).mean:.2f}']
        for group in GROUPS:
            metrics = (
                f'{group}_pseudo_per_image',
                f'pseudo_confidence_{group[0]}',
                f'{group}_pseudo_recall',
            )
            found = [spread(table.by_seed(arm, 'unlabeled_all', m).values()) for m in metrics]
            number, confidence, recall = (v.mean if v.n else math.nan for v in found)
            precision = pooled_precision(table, arm, 'unlabeled_all', group)
            cells.append(
                f'{_ratio(number, 3)} / {_ratio(confidence, 2)} / {_ratio(precision, 2)} / '
                f'{_ratio(recall, 3)}'
            )
        rows.append(cells)
    columns = 'per image / confidence / precision / recall'
    return markdown(['arm', 'seeds', 'per image', *(f'{g}: {columns}' for g in GROUPS)], rows)


def cost_table(table: Table) -> list[str]:
    """Time after the burn-in and memory, as ratios to arm 3."""
    rows = []
    for arm in table.arms:
        cells = _titled(arm)
        for metric in ('semi_seconds', 'semi_cpu_seconds', 'peak_memory'):
            own = table.by_seed(arm, 'train', metric)
            other = table.by_seed(ONE_HOT_TEACHER, 'train', metric)
            each = [own[seed] / other[seed] for seed in own if other.get(seed)]
            text = _ratio(mean_ratio(own, other), 2)
            if len(each) > 1:
                text += f' ({min(each):.2f} to {max(each):.2f})'
            cells.append(text)
        rows.append(cells)
    head = ['arm', '', 'time / arm 3', 'CPU time / arm 3', 'peak memory / arm 3']
    return [
        *markdown(head, rows),
        '',
        'Mean over seeds (smallest to largest) of the iterations after the burn-in, without '
        'evaluations. Time is by the clock, also where other runs had the machine: without a GPU '
        'go by the CPU time. Where the two runs of a seed are of different machines ("Runs"), '
        'their ratio says nothing: leave out one that is far from those of other seeds. Memory is '
        'of the GPU, or of the whole process where there is none.',
    ]


def target_table(
    table: Table, method: str = FULL_METHOD, teacher: str = ONE_HOT_TEACHER
) -> list[str]:
    """What an arm set out to reach, and what it reached.

    Args:
        table: Of one preset.
        method: The arm.
        teacher: The one-hot teacher that it is compared with.
    """

    def minus(metric: str, other: str) -> Difference:
        return paired_difference(
            table.by_seed(method, 'test', metric), table.by_seed(other, 'test', metric)
        )

    rows = []

    def add(what: str, wanted: str, reached: str, met: bool | None, seeds: Iterable[int]) -> None:
        found = ', '.join(map(str, seeds)) or '-'
        rows.append([what, wanted, reached, '-' if met is None else 'yes' if met else 'no', found])

    def shared(other: str, split: str, metric: str) -> list[int]:
        return sorted(
            table.by_seed(method, split, metric).keys() & table.by_seed(other, split, metric)
        )

    for metric, other, least in (
        ('AP', SUPERVISED, 0.028),
        ('APr', SUPERVISED, 0.103),
        ('AP', teacher, 0.010),
        ('APr', teacher, 0.030),
    ):
        found = minus(f'segm_{metric}', other)
        met = None if found.n == 0 else found.mean >= least
        wanted = f'at least {100 * least:+.1f}'
        if met is not None and metric == 'APr' and other == teacher:
            met = met and found.low > 0
        if metric == 'APr' and other == teacher:
            wanted += ', interval above 0'
        seeds: Iterable[int] = shared(other, 'test', f'segm_{metric}')
        add(f'{metric}, arm {method} - arm {other}', wanted, difference(found), met, seeds)
    seeds = table.by_seed(method, 'unlabeled_all', 'rare_pseudo_recall')
    for metric, least, value in (
        ('recall', 0.30, spread(seeds.values()).mean),
        ('precision', 0.50, pooled_precision(table, method, 'unlabeled_all', 'rare')),
    ):
        met = None if math.isnan(value) else value >= least
        what = f'{metric} of rare pseudo-labels, all unlabelled images'
        add(what, f'at least {least:.2f}', _ratio(value, 3), met, seeds)
    by_seed = table.by_seed(method, 'unlabeled', 'classes_labelled_by_3_alone')
    if by_seed:
        lost = spread(by_seed.values()).mean
        what = f'classes that arm {ONE_HOT_TEACHER} labels and arm {method} does not'
        add(what, '0', _ratio(lost, 1), lost == 0, by_seed)
    ratio = mean_ratio(
        table.by_seed(method, 'unlabeled_all', 'pseudo_cc_ece'),
        table.by_seed(teacher, 'unlabeled_all', 'pseudo_cc_ece'),
    )
    met = None if math.isnan(ratio) else ratio <= 0.5
    seeds = shared(teacher, 'unlabeled_all', 'pseudo_cc_ece')
    what = f'class-cond. ECE of pseudo-labels / arm {teacher}'
    add(what, 'at most 0.5', _ratio(ratio, 2), met, seeds)
    return markdown(['', 'wanted', 'reached', 'met', 'seeds'], rows)


def bound_note(table: Table) -> list[str]:
    """What the true labels of all unlabelled images bring in the same time."""
    lines = []
    for arm, head in TRUE_LABELS.items():
        for other in dict.fromkeys((SUPERVISED, head)):
            found = {
                metric: paired_difference(
                    table.by_seed(arm, 'test', f'segm_{metric}'),
                    table.by_seed(other, 'test', f'segm_{metric}'),
                )
                for metric in ('AP', 'APr')
            }
            if found['AP'].n:
                lines.append(
                    f'With the true labels of all unlabelled images (arm {arm}) AP - arm {other} '
                    f'is {difference(found["AP"])}, APr {difference(found["APr"])}: what faultless '
                    'labels bring in this training.'
                )
    return lines


def run_table(runs: Runs) -> list[str]:
    """Where each result comes from."""
    rows = []
    for arm in ARMS:
        found = sorted((r for r in runs.values() if r['arm'] == arm), key=lambda r: r['seed'])
        if found:
            said = [
                f'{r["seed"]}: {", ".join(r["commit"])} ({", ".join(r["date"])})' for r in found
            ]
            rows.append([arm, '; '.join(said)])
    lines = markdown(['arm', 'seed: commits (dates)'], rows)
    if any('+changes' in commit for run in runs.values() for commit in run['commit']):
        lines += [
            '',
            'More than one where parts of a run were trained at different times. `+changes`: with '
            'changes that were not committed then, so that no commit has exactly that code.',
        ]
    return lines


def _ratio(value: float, digits: int) -> str:
    return '-' if math.isnan(value) else f'{value:.{digits}f}'
