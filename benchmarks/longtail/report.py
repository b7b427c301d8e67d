"""``results.json``, ``RESULTS.md`` and the pictures, made from the runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .arms import PASTED, PASTED_TEACHER, SHIPPED, SHIPPED_TEACHER
from .presets import PRESETS, Preset
from .reach import reach_table
from .rebalance_table import rebalance_table, rebalanced_difference_table
from .results import CONFIDENCE, Record, Table, collect, merged, turned_arms
from .runs import Runs, carried_runs, in_order, read_runs
from .tables import (
    ap_table,
    bound_note,
    calibration_table,
    cost_table,
    difference_table,
    fixed_is_plain,
    pseudo_table,
    run_table,
    sensitivity_table,
    target_table,
)
from .variations import Variations, variation_lines


def write_report(preset: Preset, out: Path, results: Path) -> list[Path]:
    """Collect the runs of ``out`` and write everything into ``results``.

    What ``results`` has of other presets is kept, and so is what it has of other runs of this one
    with the present settings, unless the folder has them finished: parts of the benchmark may run
    on several machines.

    Returns:
        The files written.
    """
    from mmdet_softpl.reporting.figure import save_figure

    from .plots import draw_all, draw_ap, draw_variations, every_curve

    results.mkdir(parents=True, exist_ok=True)
    records_file, about_file = results / 'results.json', results / 'runs.json'
    about = json.loads(about_file.read_text()) if about_file.is_file() else {}
    old = json.loads(records_file.read_text()) if records_file.is_file() else []
    new = read_runs(preset, out)
    carried = carried_runs(about.get(preset.name, {}).get('runs', {}), new, preset)
    runs = in_order(new | carried)
    about[preset.name] = dict(sizes_of(preset), runs=runs)
    keys = {(run['arm'], run['seed']) for run in carried.values()}
    records = merged(old, collect(preset.name, out), preset.name, keys)
    # A record a line: a new run is a few lines of a diff.
    lines = ',\n'.join(json.dumps(record, allow_nan=False) for record in records)
    write_text(records_file, f'[\n{lines}\n]\n')
    write_text(about_file, runs_text(about))
    plots = []
    if not is_variation(preset.name, about):
        plots += draw_all(preset.name, runs, Table(records, preset.name), results / 'plots')
    for name in about:
        found = Variations(name, about, records)
        if not found.is_empty:
            path = results / 'plots' / f'{name}-labelled-images.png'
            plots.append(save_figure(draw_variations(found), path))
        curves = every_curve(about[name]['runs']) if is_variation(name, about) else {}
        if curves:
            plots.append(save_figure(draw_ap(curves), results / 'plots' / f'{name}-ap.png'))
    write_text(results / 'RESULTS.md', results_text(records, about, results))
    return [records_file, about_file, results / 'RESULTS.md', *plots]


def is_variation(name: str, about: Mapping[str, Any]) -> bool:
    """Whether a preset's results stand in the section of the one that it varies."""
    return PRESETS[name].varies in about


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
        images=preset.images,
    )


def results_text(records: Sequence[Record], about: dict[str, Any], results: Path) -> str:
    """The whole of ``RESULTS.md``."""
    lines = [
        '# Detector benchmark',
        '',
        'Made by `make benchmark` from `results.json`; nothing here is typed. What is measured '
        'and how: `benchmarks/longtail/README.md`.',
        '',
    ]
    if 'gpu' not in about:
        lines += ['The preset `gpu` has not been run: these are the results there are.', '']
    for name, runs in about.items():
        if not is_variation(name, about):
            found = Variations(name, about, records)
            lines += preset_section(Table(records, name), name, runs, results, found)
    return '\n'.join(lines)


def preset_section(
    table: Table, name: str, about: dict[str, Any], results: Path, variations: Variations
) -> list[str]:
    """Everything about one preset."""
    images, runs = about['images'], about['runs']
    lines = [
        f'## Preset `{name}`',
        '',
        f'{about["classes"]} classes; {images["train"]} labelled and {images["unlabeled"]} '
        f'unlabelled images; {about["max_iters"]} iterations of {about["labeled_per_batch"]} '
        f'labelled images, the first {about["supervised_iters"]} shared; '
        f'{_listed(runs, "hardware")}; torch {_listed(runs, "torch")}.',
        '',
        _about_seeds(table.seeds),
        '',
    ]
    missing = missing_runs(table, runs, PRESETS[name].arms)
    if missing:
        lines += [f'**Missing or unfinished:** {", ".join(missing)}.', '']
    lines += ['### Mask AP on `test`', '', *ap_table(table, 'test', 'segm'), '']
    lines += [
        'Rows measured with different seeds cannot be compared: see the paired differences.',
        '',
    ]
    if all(fixed_is_plain(table, s, k) for s in ('test', 'tune') for k in ('segm', 'bbox')):
        lines += ['AP-Fixed (no limit of detections an image) is AP to the digit in every run.', '']
    lines += ['### Box AP on `test`', '', *ap_table(table, 'test', 'bbox'), '']
    lines += ['### Mask AP on `tune`', '', *ap_table(table, 'tune', 'segm'), '']
    lines += ['### Paired differences, mask AP on `test`', '', *difference_table(table), '']
    lines += ['### Calibration', '', *calibration_table(table), '']
    lines += [
        '### Pseudo-labels',
        '',
        *pseudo_table(table, about),
        '',
        *reach_table(table, runs),
        '',
    ]
    rebalanced = rebalance_table(table)
    if rebalanced:
        lines += ['### Rebalanced after training, mask AP / APr / APc / APf', '', *rebalanced, '']
        lines += [*rebalanced_difference_table(table), '']
    for arm in turned_arms(table):
        lines += [f'### Sensitivity of arm {arm}, mask AP on `tune`', '']
        lines += [*sensitivity_table(table, arm), '']
    varied = variation_lines(variations)
    if varied:
        lines += ['### Labelled images, mask AP on `test`', '', *varied, '']
    lines += ['### Cost', '', *cost_table(table), '']
    lines += ['### Targets', '', *target_table(table), '']
    if SHIPPED in table.arms:
        lines += ['As it is shipped, without pasted objects:', '']
        lines += [*target_table(table, SHIPPED, SHIPPED_TEACHER), '']
    if PASTED in table.arms:
        lines += ['As it is shipped:', '', *target_table(table, PASTED, PASTED_TEACHER), '']
    bound = bound_note(table)
    lines += [*bound, ''] if bound else []
    lines += ['### Runs', '', *run_table(runs), '']
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
