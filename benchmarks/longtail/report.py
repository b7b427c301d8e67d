"""``results.json``, ``RESULTS.md`` and the pictures, made from the runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .arms import ARMS, FULL_METHOD
from .presets import PRESETS, Preset
from .results import (
    CONFIDENCE,
    ONE_HOT_TEACHER,
    Difference,
    Record,
    Spread,
    Table,
    collect,
    mean_ratio,
    merged,
    paired_difference,
    spread,
)
from .runs import Runs, kept_runs, read_runs

SUPERVISED, TRUE_LABELS = '0', '0-true'
AP_COLUMNS = ('AP', 'AP50', 'APr', 'APc', 'APf', 'AP_fixed', 'APr_fixed')
GROUPS = ('rare', 'common', 'frequent')


def write_report(preset: Preset, out: Path, results: Path) -> list[Path]:
    """Collect the runs of ``out`` and write everything into ``results``.

    What ``results`` has of other presets is kept, and so is what it has of other runs of this one
    with the same settings: parts of the benchmark may run on several machines.

    Returns:
        The files written.
    """
    from .plots import draw_all

    results.mkdir(parents=True, exist_ok=True)
    records_file, about_file = results / 'results.json', results / 'runs.json'
    about = json.loads(about_file.read_text()) if about_file.is_file() else {}
    old = json.loads(records_file.read_text()) if records_file.is_file() else []
    runs = kept_runs(about.get(preset.name, {}).get('runs', {}), read_runs(preset, out), preset)
    about[preset.name] = dict(sizes_of(preset), runs=runs)
    keys = [(run['arm'], run['seed']) for run in runs.values()]
    records = merged(old, collect(preset.name, out), preset.name, keys)
    # A record a line: a new run is a few lines of a diff.
    lines = ',\n'.join(json.dumps(record, allow_nan=False) for record in records)
    write_text(records_file, f'[\n{lines}\n]\n')
    write_text(about_file, runs_text(about))
    plots = draw_all(preset.name, runs, Table(records, preset.name), results / 'plots')
    write_text(results / 'RESULTS.md', results_text(records, about, results))
    return [records_file, about_file, results / 'RESULTS.md', *plots]


def runs_text(about: dict[str, Any]) -> str:
    """``runs.json`` with a line for each run."""
    presets = []
    for name, content in about.items():
        head = {key: value for key, value in content.items() if key != 'runs'}
        entries = ',\n'.join(
            f'{json.dumps(run)}: {json.dumps(values)}' for run, values in content['runs'].items()
        )
        presets.append(f'{json.dumps(name)}: {json.dumps(head)[:-1]}, "runs": {{\n{entries}\n}}}}')
    return '{\n' + ',\n'.join(presets) + '\n}\n'


def write_text(path: Path, text: str) -> None:
    """Write beside ``path``, then rename."""
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


def sizes_of(preset: Preset) -> dict[str, Any]:
    """Sizes of the preset that the page names."""
    return dict(
        supervised_iters=preset.supervised_iters,
        max_iters=preset.max_iters,
        labeled_per_batch=preset.labeled_per_batch,
        pseudo_images=preset.pseudo_images,
        classes=preset.data.num_classes,
        images=dict(preset.data.splits),
    )


def results_text(records: Sequence[Record], about: dict[str, Any], results: Path) -> str:
    """The whole of ``RESULTS.md``."""
    lines = [
        '# Detector benchmark',
        '',
        'Made by `make benchmark` from `results.json`; nothing here is typed. What is measured and '
        'how: `benchmarks/longtail/README.md`.',
        '',
    ]
    for name, runs in about.items():
        lines += preset_section(Table(records, name), name, runs, results)
    return '\n'.join(lines)


def preset_section(table: Table, name: str, about: dict[str, Any], results: Path) -> list[str]:
    """Everything about one preset."""
    images, runs = about['images'], about['runs']
    lines = [
        f'## Preset `{name}`',
        '',
        f'{about["classes"]} classes; {images["train"]} labelled and {images["unlabeled"]} '
        f'unlabelled images; {about["max_iters"]} iterations of {about["labeled_per_batch"]} '
        f'labelled images, the first {about["supervised_iters"]} shared; '
        f'{_listed(runs, "hardware")}; torch {_listed(runs, "torch")}; '
        f'{_listed(runs, "date")}; commit {_listed(runs, "commit")}.',
        '',
        _about_seeds(table.seeds),
        '',
    ]
    missing = missing_runs(table, runs, PRESETS[name].arms)
    if missing:
        lines += [f'**Missing or unfinished:** {", ".join(missing)}.', '']
    lines += ['### Mask AP on `test`', '', *ap_table(table, 'test', 'segm'), '']
    lines += ['### Box AP on `test`', '', *ap_table(table, 'test', 'bbox'), '']
    lines += ['### Mask AP on `tune`', '', *ap_table(table, 'tune', 'segm'), '']
    lines += ['### Paired differences, mask AP on `test`', '', *difference_table(table), '']
    lines += ['### Calibration', '', *calibration_table(table), '']
    lines += ['### Pseudo-labels', '', *pseudo_table(table, about), '']
    lines += ['### Cost', '', *cost_table(table), '']
    lines += ['### Targets', '', *target_table(table), '']
    for path in sorted((results / 'plots').glob(f'{name}-*.png')):
        lines += [f'![{path.stem}](plots/{path.name})', '']
    return lines


def _listed(runs: Runs, key: str) -> str:
    return ', '.join(sorted({value for run in runs.values() for value in run[key]})) or 'unknown'


def _about_seeds(seeds: Sequence[int]) -> str:
    n = len(seeds)
    text = f'{n} seed{"s" if n != 1 else ""}. Mean ± standard deviation; '
    if n < 2:
        return text + 'one seed has no spread and no interval, and shows no difference.'
    from scipy.stats import t as student_t

    factor = float(student_t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return (
        text + f'differences are paired by seed, with the {CONFIDENCE:.0%} t interval. With {n} '
        f'seeds that is {factor:.1f} standard errors to each side: it is wide, and misses small '
        'effects.'
    )


def missing_runs(table: Table, runs: Runs, arms: Sequence[str]) -> list[str]:
    """Unfinished runs, and those of the preset's own ``arms`` (none: all) without a seed."""
    missing = [name for name, run in runs.items() if not run['finished']]
    for arm in arms or table.arms:
        have = table.by_seed(arm, 'test', 'segm_AP')
        for seed in table.seeds:
            name = f'arm-{arm}-seed{seed}'
            if seed not in have and name not in missing:
                missing.append(name)
    return missing


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
    table: Table, columns: Sequence[tuple[str, str, str]], show: Callable[[Spread], str]
) -> list[str]:
    """A row for each arm; columns are (head, split, metric)."""
    rows = [
        _titled(arm) + [show(spread(table.by_seed(arm, s, m).values())) for _, s, m in columns]
        for arm in table.arms
    ]
    return markdown(['arm', '', *(head for head, _, _ in columns)], rows)


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


def ap_table(table: Table, split: str, kind: str) -> list[str]:
    """AP by arm."""
    heads = [column.replace('_fixed', ' Fixed') for column in AP_COLUMNS]
    columns = [(h, split, f'{kind}_{c}') for h, c in zip(heads, AP_COLUMNS, strict=True)]
    return _by_arm(table, columns, percent)


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


def calibration_table(table: Table) -> list[str]:
    """Errors of the test detections, of the pseudo-labels and of all objects seen."""
    columns = [('ECE', 'test', 'ece'), ('class-cond.', 'test', 'cc_ece')]
    columns += [(name, 'test', f'cc_ece_{name[0]}') for name in GROUPS]
    columns += [
        ('pseudo-labels: ECE', 'unlabeled_all', 'pseudo_ece'),
        ('class-cond.', 'unlabeled_all', 'pseudo_cc_ece'),
        ('by chance', 'unlabeled_all', 'pseudo_cc_ece_chance'),
        ('objects: class-cond., raw', 'unlabeled_all', 'object_raw_cc_ece'),
        ('by chance', 'unlabeled_all', 'object_raw_cc_ece_chance'),
        ('calibrated', 'unlabeled_all', 'object_cc_ece'),
        ('by chance', 'unlabeled_all', 'object_cc_ece_chance'),
    ]
    return [
        *_by_arm(table, columns, decimal),
        '',
        'The first five columns are of the detections on `test` (score 0.05 and more); the others '
        "of the teacher's labels on all unlabelled images: those it keeps, then the surest label "
        'of every object. Class-conditional: mean over the classes with 10 or more. By chance: '
        'what perfectly calibrated labels of the same confidences would show there.',
    ]


def pseudo_table(table: Table, about: dict[str, Any]) -> list[str]:
    """Number, precision and recall of the kept pseudo-labels by group."""
    rows = []
    for arm in table.arms:

        def value(metric: str, digits: int, arm: str = arm) -> str:
            found = spread(table.by_seed(arm, 'unlabeled', metric).values())
            return f'{found.mean:.{digits}f}' if found.n else '-'

        cells = [arm, value('pseudo_per_image', 2)]
        for group in GROUPS:
            cells += [
                f'{value(f"{group}_pseudo_per_image", 3)} / {value(f"{group}_pseudo_precision", 2)}'
                f' / {value(f"{group}_pseudo_recall", 2)}'
            ]
        cells += [
            percent(spread(table.by_seed(arm, 'unlabeled', 'pseudo_never_labelled').values())),
            value('never_labelled_in_training', 1),
            value('classes_labelled_by_3_alone', 1),
        ]
        rows.append(cells)
    head = ['arm', 'per image', *(f'{g}: per image / precision / recall' for g in GROUPS)]
    head += ['% classes without', 'classes without in training', 'classes that 3 labels alone']
    return [
        *markdown(head, rows),
        '',
        f'The last teacher on a fixed sample of {about["pseudo_images"]} unlabelled images with '
        'its last thresholds, against the hidden labels (box IoU 0.5). A supervised arm labels '
        'what its moving average would label at its threshold.',
    ]


def cost_table(table: Table) -> list[str]:
    """Time after the burn-in and memory, as ratios to arm 3."""
    rows = []
    for arm in table.arms:
        cells = _titled(arm)
        for metric in ('semi_seconds', 'semi_cpu_seconds', 'peak_memory'):
            ratio = mean_ratio(
                table.by_seed(arm, 'train', metric), table.by_seed(ONE_HOT_TEACHER, 'train', metric)
            )
            cells.append(f'{ratio:.2f}' if math.isfinite(ratio) else '-')
        rows.append(cells)
    head = ['arm', '', 'time / arm 3', 'CPU time / arm 3', 'peak memory / arm 3']
    return [
        *markdown(head, rows),
        '',
        'Iterations after the burn-in, without evaluations. Memory is of the GPU, or of the whole '
        'process where there is none.',
    ]


def target_table(table: Table) -> list[str]:
    """What the full method set out to reach, and what it reached."""

    def minus(metric: str, other: str) -> Difference:
        return paired_difference(
            table.by_seed(FULL_METHOD, 'test', metric), table.by_seed(other, 'test', metric)
        )

    def mean(arm: str, metric: str) -> float:
        return spread(table.by_seed(arm, 'unlabeled', metric).values()).mean

    rows = []

    def add(what: str, wanted: str, reached: str, met: bool | None) -> None:
        rows.append([what, wanted, reached, '-' if met is None else 'yes' if met else 'no'])

    for metric, other, least in (
        ('AP', SUPERVISED, 0.028),
        ('APr', SUPERVISED, 0.103),
        ('AP', ONE_HOT_TEACHER, 0.010),
        ('APr', ONE_HOT_TEACHER, 0.030),
    ):
        found = minus(f'segm_{metric}', other)
        met = None if found.n == 0 else found.mean >= least
        wanted = f'at least {100 * least:+.1f}'
        if met is not None and metric == 'APr' and other == ONE_HOT_TEACHER:
            met = met and found.low > 0
        if metric == 'APr' and other == ONE_HOT_TEACHER:
            wanted += ', interval above 0'
        add(f'{metric}, arm {FULL_METHOD} - arm {other}', wanted, difference(found), met)
    for metric, least in (('recall', 0.30), ('precision', 0.50)):
        value = mean(FULL_METHOD, f'rare_pseudo_{metric}')
        met = None if math.isnan(value) else value >= least
        add(f'{metric} of rare pseudo-labels', f'at least {least:.2f}', _number(value), met)
    lost = mean(FULL_METHOD, 'classes_labelled_by_3_alone')
    met = None if math.isnan(lost) else lost == 0
    add(f'classes that arm 3 labels and arm {FULL_METHOD} does not', '0', _number(lost), met)
    ratio = mean_ratio(
        table.by_seed(FULL_METHOD, 'unlabeled_all', 'pseudo_cc_ece'),
        table.by_seed(ONE_HOT_TEACHER, 'unlabeled_all', 'pseudo_cc_ece'),
    )
    met = None if math.isnan(ratio) else ratio <= 0.5
    add('class-cond. ECE of pseudo-labels / arm 3', 'at most 0.5', _number(ratio), met)
    return [
        *markdown(['', 'wanted', 'reached', 'met'], rows),
        *bound_note(table),
    ]


def bound_note(table: Table) -> list[str]:
    """What the true labels of all unlabelled images bring in the same time."""
    found = {
        metric: paired_difference(
            table.by_seed(TRUE_LABELS, 'test', f'segm_{metric}'),
            table.by_seed(SUPERVISED, 'test', f'segm_{metric}'),
        )
        for metric in ('AP', 'APr')
    }
    if found['AP'].n == 0:
        return []
    return [
        '',
        f'With the true labels of all unlabelled images (arm {TRUE_LABELS}) AP - arm {SUPERVISED} '
        f'is {difference(found["AP"])}, APr {difference(found["APr"])}: what faultless labels '
        'bring in this training.',
    ]


def _number(value: float) -> str:
    return '-' if math.isnan(value) else f'{value:.3f}'
