"""Arithmetic of the benchmark's tables against closed forms, and tables of partial results."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy import stats

from benchmarks.longtail import plots
from benchmarks.longtail.job import REBALANCED_FILE, Job, comparable, config_of
from benchmarks.longtail.measure import calibration_errors
from benchmarks.longtail.presets import PRESETS
from benchmarks.longtail.rebalance_table import rebalance_table, rebalanced_difference_table
from benchmarks.longtail.report import missing_runs, write_report
from benchmarks.longtail.results import (
    Difference,
    Table,
    collect,
    mean_ratio,
    merged,
    paired_difference,
    spread,
    turned_arms,
)
from benchmarks.longtail.runs import carried_runs, digest, jobs_in, read_runs
from benchmarks.longtail.tables import (
    ap_table,
    bound_note,
    difference,
    pooled_precision,
    sensitivity_table,
    target_table,
)


def test_mean_and_spread() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.n) == (3.0, 3)
    assert found.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(spread([4.0]).deviation)
    assert math.isnan(spread([]).mean)


def test_interval_is_that_of_the_paired_t_test() -> None:
    a, b = {0: 0.31, 1: 0.35, 2: 0.30, 5: 9.0}, {0: 0.25, 1: 0.31, 2: 0.22, 4: 9.0}
    found = paired_difference(a, b)
    oracle = stats.ttest_rel([0.31, 0.35, 0.30], [0.25, 0.31, 0.22]).confidence_interval(0.95)
    assert found.n == 3
    assert found.mean == pytest.approx(0.06)
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high))


def test_one_pair_has_no_interval_and_no_pair_no_mean() -> None:
    one = paired_difference({0: 2.0}, {0: 1.5})
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.low) and math.isnan(one.high)
    assert difference(one) == '+50.0 (1 seed)'
    assert difference(paired_difference({0: 2.0}, {1: 1.5})) == '-'


def test_bold_where_the_interval_leaves_out_zero() -> None:
    assert difference(Difference(0.02, 0.01, 0.03, 3)) == '**+2.0 [+1.0, +3.0]**'
    assert difference(Difference(-0.02, -0.03, -0.01, 3)).startswith('**')
    assert difference(Difference(0.02, -0.01, 0.05, 3)) == '+2.0 [-1.0, +5.0]'


def test_ratio_is_paired() -> None:
    assert mean_ratio({0: 2.0, 1: 9.0, 2: 1.0}, {0: 1.0, 1: 3.0}) == pytest.approx(2.5)
    assert math.isnan(mean_ratio({0: 2.0}, {1: 1.0}))


def make_run(out: Path, arm: str, seed: int, ap: float, whole: bool = True) -> None:
    folder = out / 'runs' / f'arm-{arm}-seed{seed}'
    folder.mkdir(parents=True)
    metrics = dict(segm_AP=ap, segm_APr=ap / 2, bbox_AP=ap, ece=0.1, cc_ece=None)
    reliability = [[[0.0] * 15] * 2] * 3
    (folder / 'tune.json').write_text(json.dumps(dict(metrics=metrics, reliability=reliability)))
    origin = dict(commit='abc', date='2026-01-01', hardware='a machine', torch='2')
    (folder / 'origin.json').write_text(json.dumps(origin))
    point = dict(segm_AP=ap, segm_APr=ap, rare_pseudo_recall=0.1, rare_pseudo_precision=None)
    (folder / 'curves.json').write_text(json.dumps({'4': point, '10': point}))
    if not whole:
        return
    (folder / 'test.json').write_text(json.dumps(dict(metrics=metrics, reliability=reliability)))
    quality = dict(
        rare_pseudo_recall=0.4,
        rare_pseudo_precision=0.6,
        rare_pseudo_per_image=1.0,
        pseudo_per_image=1.0,
        never_labelled=['b'] if arm == '3' else ['a', 'b'],
        per_class=dict(a={}, b={}),
    )
    errors = dict(ece=0.1, cc_ece=0.2 if arm == '3' else 0.08, cc_ece_chance=0.05)
    part = dict(errors=errors, reliability=reliability)
    judged = dict(quality=quality, pseudo=part, object=part, object_raw=part)
    pseudo = dict(groups=[0, 2], sample=judged, all=judged)
    (folder / 'pseudo.json').write_text(json.dumps(pseudo))
    (folder / 'cost.json').write_text(json.dumps(dict(semi_seconds=10.0 * (1 + int(arm[0])))))


def test_folders_put_aside_are_no_runs(tmp_path: Path) -> None:
    for name in ('arm-7-seed10', 'arm-7-seed2', 'arm-7-seed2-old', 'arm-7-seed', 'arm-8-seed0'):
        (tmp_path / 'runs' / name).mkdir(parents=True)
    assert jobs_in(tmp_path) == [Job('7', 10), Job('7', 2), Job('8', 0)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for seed, shift in enumerate((0.0, 0.01, 0.03)):
        make_run(tmp_path, '0', seed, 0.20 + shift)
        make_run(tmp_path, '3', seed, 0.22 + shift)
        make_run(tmp_path, '7', seed, 0.26 + shift + (0.001 if seed else 0), whole=seed != 2)
    return tmp_path


def test_records_have_the_six_keys(out: Path) -> None:
    records = collect('tiny', out)
    assert {frozenset(r) for r in records} == {
        frozenset(('preset', 'arm', 'seed', 'split', 'metric', 'value'))
    }
    keys = [tuple(r[k] for k in ('preset', 'arm', 'seed', 'split', 'metric')) for r in records]
    assert len(set(keys)) == len(keys)
    table = Table(records, 'tiny')
    assert table.arms == ['0', '3', '7']
    assert table.by_seed('0', 'test', 'segm_AP') == pytest.approx({0: 0.20, 1: 0.21, 2: 0.23})
    assert table.by_seed('7', 'test', 'segm_AP').keys() == {0, 1}
    assert table.by_seed('0', 'test', 'cc_ece') == {}
    for split in ('unlabeled', 'unlabeled_all'):
        assert table.by_seed('7', split, 'pseudo_cc_ece') == {0: 0.08, 1: 0.08}
    # Arm 3 labels class a, arm 7 does not.
    assert table.by_seed('7', 'unlabeled', 'classes_labelled_by_3_alone') == {0: 1, 1: 1}


def test_an_ap_of_nothing_is_no_ap() -> None:
    values = {
        'segm_APr': -1.0,
        'rebalanced_segm_APr': -1.0,
        'segm_AP': 0.0,
        'rebalanced_bbox_AP_gain_low': -0.004,
    }
    common = dict(preset='tiny', arm='0', split='test')
    records = [dict(common, seed=0, metric=m, value=v) for m, v in values.items()]
    records += [dict(common, seed=1, metric=m, value=0.2) for m in values]
    table = Table(records, 'tiny')
    assert table.by_seed('0', 'test', 'segm_APr') == {1: 0.2}
    assert table.by_seed('0', 'test', 'rebalanced_segm_APr') == {1: 0.2}
    assert table.by_seed('0', 'test', 'segm_AP') == {0: 0.0, 1: 0.2}
    # A difference may be negative.
    assert table.by_seed('0', 'test', 'rebalanced_bbox_AP_gain_low') == {0: -0.004, 1: 0.2}


def test_rebalanced_runs(out: Path) -> None:
    assert rebalance_table(Table(collect('tiny', out), 'tiny')) == []
    found = dict(
        gamma=0.8,
        interval=[-0.004, 0.012],
        verdict='cannot tell',
        metrics={split: dict(segm_AP=0.3, segm_APr=0.15) for split in ('tune', 'test')},
    )
    (out / 'runs' / 'arm-3-seed1' / REBALANCED_FILE).write_text(json.dumps(found))
    records = collect('tiny', out)
    table = Table(records, 'tiny')
    assert table.by_seed('3', 'test', 'rebalanced_segm_AP') == {1: 0.3}
    assert table.by_seed('3', 'test', 'segm_AP')[1] == pytest.approx(0.23)
    head, _, row = rebalance_table(table)
    assert head.count('|') == row.count('|') == 9
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[:4] == ['3', '1', '0.8', '-0.4 to +1.2']
    assert cells[4:] == ['23.0 / 11.5 / - / -', '30.0 / 15.0 / - / -'] * 2
    kept = [r for r in records if (r['split'], r['metric'][:15]) != ('tune', 'rebalanced_segm')]
    *_, row, _, note = rebalance_table(Table(kept, 'tiny'))
    assert row.endswith('| 23.0 / 11.5 / - / - | - | 23.0 / 11.5 / - / - | 30.0 / 15.0 / - / - |')
    assert note.endswith('copied as printed, to a tenth.')


def test_differences_of_rebalanced_runs() -> None:
    def record(arm: str, seed: int, metric: str, value: float) -> dict:
        return dict(preset='p', arm=arm, seed=seed, split='test', metric=metric, value=value)

    values = {'7-shipped': (0.30, 0.31), '3-normed': (0.20, 0.27), '3-shipped': (0.25, 0.26)}
    records = [
        record(arm, seed, prefix + 'segm_AP', value)
        for arm, pair in values.items()
        for seed in (0, 1)
        for prefix, value in zip(('', 'rebalanced_'), pair, strict=True)
    ]
    _, _, *rows = rebalanced_difference_table(Table(records, 'p'))
    cells = {
        row[0]: row[1:] for row in ([c.strip() for c in r.strip('|').split('|')] for r in rows)
    }
    for other, expected in (
        ('3-normed', ['+10.0', '+4.0', '+11.0', '+3.0']),
        ('3-shipped', ['+5.0', '+5.0', '+6.0', '+4.0']),
    ):
        found = [cell.strip('*').split(' ')[0] for cell in cells[f'7-shipped - {other}'][::2]]
        assert found == expected
    assert set(cells['7-shipped - 3-normed'][1::2]) == set(cells['7-shipped - 0']) == {'-'}


def test_other_presets_and_runs_of_other_machines_are_kept() -> None:
    def record(preset: str, arm: str, seed: int, value: int) -> dict:
        return dict(preset=preset, arm=arm, seed=seed, value=value)

    old = [
        record('cpu', '7', 0, 1),
        record('cpu', '7', 1, 2),
        record('cpu', '8', 0, 3),
        record('gpu', '7', 0, 4),
    ]
    # Seed 1 was run anew, arm 8 counts no longer.
    new = [record('cpu', '7', 1, 5), record('cpu', '0', 1, 6)]
    assert merged(old, new, 'cpu', {('7', 0)}) == [
        record('gpu', '7', 0, 4),
        record('cpu', '0', 1, 6),
        record('cpu', '7', 0, 1),
        record('cpu', '7', 1, 5),
    ]


def test_a_knob_is_compared_with_the_default_in_its_own_seeds() -> None:
    arm = '7-shipped'
    values = {
        arm: (0.20, 0.22, 0.90),
        f'{arm}-alpha-0.25': (0.18, 0.21),
        f'{arm}-alpha-1': (0.25,),
        '7-unsup_weight-1': (0.17,),
    }
    records = [
        dict(preset='cpu', arm=name, seed=seed, split='tune', metric=f'segm_{ap}', value=value)
        for name, found in values.items()
        for seed, value in enumerate(found)
        for ap in ('AP', 'APr')
    ]
    table = Table(records, 'cpu')
    assert table.arms == [arm]
    assert table.knob_arms == ['7-unsup_weight-1', f'{arm}-alpha-0.25', f'{arm}-alpha-1']
    assert turned_arms(table) == ['7', arm]
    lines = sensitivity_table(table, arm)
    assert [line.split(' | ')[:3] for line in lines[2:]] == [
        ['| alpha', '0.25', '19.5 ± 2.1'],
        ['| alpha', '0.5 (arm 7-shipped)', '21.0 ± 1.4'],
        ['| alpha', '1', '25.0'],
    ]
    assert '| -1.5 [' in lines[2] and '| +5.0 (1 seed) |' in lines[4]
    axes = plots.draw_sensitivity(table, arm).axes
    assert [one.get_xlabel() for one in axes] == ['alpha']
    ring = axes[0].lines[-1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == (['0.5'], [pytest.approx(21.0)])


def test_two_machines_make_the_report_of_one(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed by seed into the same folder of results, or all at once."""
    monkeypatch.setattr(plots, 'draw_all', lambda *args: [])
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    write_report(PRESETS['tiny'], out, whole)
    for seed in (2, 0, 1):
        machine = tmp_path / f'machine-{seed}'
        for folder in (out / 'runs').glob(f'*seed{seed}'):
            shutil.copytree(folder, machine / 'runs' / folder.name)
        write_report(PRESETS['tiny'], machine, parts)
    for name in ('results.json', 'runs.json', 'RESULTS.md'):
        assert (parts / name).read_text() == (whole / name).read_text(), name


def test_runs_with_other_settings_are_left_out(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, 'draw_all', lambda *args: [])
    results, elsewhere = tmp_path / 'results', tmp_path / 'elsewhere'
    write_report(PRESETS['tiny'], out, results)
    longer = replace(PRESETS['tiny'], max_iters=9)
    # One of them has begun again, with the new settings.
    (elsewhere / 'runs' / 'arm-7-seed0').mkdir(parents=True)
    write_report(longer, elsewhere, results)
    assert json.loads((results / 'results.json').read_text()) == []
    assert 'arm-7-seed0' in (results / 'RESULTS.md').read_text()


def test_a_run_that_has_begun_again_keeps_its_results_until_it_is_done(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, 'draw_all', lambda *args: [])
    results, elsewhere = tmp_path / 'results', tmp_path / 'elsewhere'
    write_report(PRESETS['tiny'], out, results)
    before = [(results / name).read_text() for name in ('results.json', 'runs.json')]
    (elsewhere / 'runs' / 'arm-7-seed0').mkdir(parents=True)
    write_report(PRESETS['tiny'], elsewhere, results)
    assert [(results / name).read_text() for name in ('results.json', 'runs.json')] == before

    # One that was not finished either goes on.
    old = dict(arm='7', seed=2, settings=digest('7', PRESETS['tiny']), finished=False)
    for finished in (False, True):
        new = {'arm-7-seed2': dict(old, finished=finished)}
        assert carried_runs({'arm-7-seed2': old}, new, PRESETS['tiny']) == {}
    assert carried_runs({'arm-7-seed2': old}, {}, PRESETS['tiny']) == {'arm-7-seed2': old}


def test_a_run_counts_with_the_settings_that_it_was_begun_with(tmp_path: Path) -> None:
    preset = PRESETS['tiny']
    make_run(tmp_path, '7', 1, 0.2)
    job = Job('7', 1)
    settings = comparable(config_of(job, preset, 'cpu'))
    path = job.folder(tmp_path) / 'settings.json'
    path.write_text(json.dumps(settings))
    assert read_runs(preset, tmp_path)[job.name]['settings'] == digest('7', preset)
    settings['model']['semi_train_cfg']['unsup_weight'] = 9
    path.write_text(json.dumps(settings))
    assert read_runs(preset, tmp_path)[job.name]['settings'] != digest('7', preset)


@pytest.mark.parametrize(
    ('arm', 'left_out', 'finished'),
    [
        ('7', 'test', False),
        ('7-boost_gamma-2', 'test', True),
        ('7-boost_gamma-2', 'tune', False),
        ('7-boost_gamma-2', 'pseudo', False),
    ],
)
def test_knobs_are_compared_on_tune_alone(
    tmp_path: Path, arm: str, left_out: str, finished: bool
) -> None:
    folder = Job(arm, 0).folder(tmp_path)
    folder.mkdir(parents=True)
    for name in {'tune', 'test', 'pseudo'} - {left_out}:
        (folder / f'{name}.json').write_text('{}')
    assert read_runs(PRESETS['tiny'], tmp_path)[f'arm-{arm}-seed0']['finished'] == finished


def test_reliability_of_a_run_is_summed_over_the_classes_of_a_group(tmp_path: Path) -> None:
    make_run(tmp_path, '7', 0, 0.2)
    path = tmp_path / 'runs' / 'arm-7-seed0' / 'pseudo.json'
    pseudo = json.loads(path.read_text())
    counts = torch.rand(3, 4, 15, generator=torch.Generator().manual_seed(0))
    pseudo['groups'] = [2, 0, 2, 0]
    pseudo['all']['object']['reliability'] = counts.tolist()
    pseudo['all']['object_raw']['reliability'] = torch.zeros(3, 4, 15).tolist()
    path.write_text(json.dumps(pseudo))
    found = torch.tensor(
        read_runs(PRESETS['tiny'], tmp_path)['arm-7-seed0']['reliability']['object']
    )
    expected = torch.stack(
        [counts[:, 1] + counts[:, 3], 0 * counts[:, 0], counts[:, 0] + counts[:, 2]], 1
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=6e-4)


def test_the_report_of_partial_results(out: Path, tmp_path: Path) -> None:
    results = tmp_path / 'results'
    write_report(PRESETS['tiny'], out, results)
    text = (results / 'RESULTS.md').read_text()
    assert '**Missing or unfinished:** arm-7-seed2.' in text
    assert 'nan' not in text
    # AP of arm 7 minus arm 0 on the two seeds that both have: 6.0 and 6.1.
    half = stats.t.ppf(0.975, 1) * 0.05
    assert f'+6.0 [{6.05 - half:+.1f}, {6.05 + half:+.1f}]' in text.replace('**', '')
    assert '| 3 | one-hot teacher on the head of 0 | 1.00 (1.00 to 1.00) |' in text
    assert '| 7 | + calibrated targets: the full method | 2.00 (2.00 to 2.00) |' in text
    for picture in ('ablation', 'ap', 'pseudo-labels', 'reliability-arm-7'):
        assert (results / 'plots' / f'tiny-{picture}.png').stat().st_size > 1000
        assert f'plots/tiny-{picture}.png' in text
    again = json.loads((results / 'results.json').read_text())
    write_report(PRESETS['tiny'], out, results)
    assert json.loads((results / 'results.json').read_text()) == again


def test_presets_that_vary_another_stand_in_its_section(out: Path, tmp_path: Path) -> None:
    results, half = tmp_path / 'results', tmp_path / 'half'
    write_report(PRESETS['tiny'], out, results)
    assert 'Labelled images' not in (results / 'RESULTS.md').read_text()
    for arm, ap in (('0', 0.10), ('7', 0.15)):
        make_run(half, arm, 1, ap)
    write_report(PRESETS['tiny-30-labeled'], half, results)
    text = (results / 'RESULTS.md').read_text()
    assert '## Preset `tiny-30-labeled`' not in text
    # Of seed 1, which both have: 0.21, 0.23 and 0.271 with all 60.
    row = next(line for line in text.splitlines() if line.startswith('| 60 of 108 (56%) |'))
    assert [cell.split(' / ')[0].strip() for cell in row.split('|')[3:5]] == ['23.0', '27.1']
    row = next(line for line in text.splitlines() if line.startswith('| 30 of 108 (28%) |'))
    assert '| 10.0 / ' in row and '| 15.0 / ' in row and '| +5.0 (1 seed) |' in row
    # A line in log(images) through 10 at 30 and 21 at 60 has 15 there.
    images = round(30 * 2 ** (5 / 11))
    assert f'30 as about {images}, 60 as more than 60.' in text
    assert (results / 'plots' / 'tiny-labelled-images.png').stat().st_size > 1000
    assert 'plots/tiny-labelled-images.png' in text
    assert (results / 'plots' / 'tiny-30-labeled-ap.png').stat().st_size > 1000
    assert 'all arms:' not in text
    write_report(PRESETS['tiny'], out, results)
    assert (results / 'RESULTS.md').read_text() == text
    assert (results / 'plots' / 'tiny-30-labeled-ap.png').is_file()
    # Arms that the other presets need not have.
    for arm, ap in (('2', 0.11), ('7-unsup_weight-0.5', 0.16)):
        make_run(half, arm, 1, ap)
    write_report(PRESETS['tiny-30-labeled'], half, results)
    _, rest = (results / 'RESULTS.md').read_text().split('\n30 of 108 (28%), all arms:\n')
    rows = [line.split(' | ') for line in rest.strip().split('\n\n')[0].splitlines()[2:]]
    assert [row[0].strip('| ') for row in rows] == ['0', '2', '7', '7-unsup_weight-0.5']
    assert [row[2] for row in rows] == ['1'] * 4
    assert [row[3] for row in rows] == ['10.0', '11.0', '15.0', '16.0']
    # Beside them the same runs with all 60 images, where there are any.
    assert [row[9] for row in rows] == ['21.0', '-', '27.1', '-']
    # Alone it has a section of its own.
    write_report(PRESETS['tiny-30-labeled'], half, tmp_path / 'alone')
    assert '## Preset `tiny-30-labeled`' in (tmp_path / 'alone' / 'RESULTS.md').read_text()


def test_a_longer_training_stands_beside_the_same_runs(out: Path, tmp_path: Path) -> None:
    results, longer = tmp_path / 'results', tmp_path / 'long'
    make_run(tmp_path / 'alone', '7-shipped', 0, 0.2)
    for preset, runs in (('tiny', out), ('tiny-long', tmp_path / 'alone')):
        write_report(PRESETS[preset], runs, tmp_path / 'two')
    assert '12 iterations, all arms:' in (tmp_path / 'two' / 'RESULTS.md').read_text()
    write_report(PRESETS['tiny'], out, results)
    make_run(tmp_path / 'half', '0', 1, 0.10)
    write_report(PRESETS['tiny-30-labeled'], tmp_path / 'half', results)
    text = (results / 'RESULTS.md').read_text()
    for seed, ap in ((0, 0.30), (5, 0.40)):
        make_run(longer, '7', seed, ap)
    make_run(longer, '7-shipped', 0, 0.20)
    write_report(PRESETS['tiny-long'], longer, results)
    now = (results / 'RESULTS.md').read_text()
    # Its seeds are none of the table of labelled images.
    for line in text.splitlines():
        assert not line.startswith(('| 60 of', '| 30 of')) or line in now
    _, rest = now.split('\n60 of 108 (56%), 12 iterations, all arms:\n')
    rows = [line.split(' | ') for line in rest.strip().split('\n\n')[0].splitlines()[2:]]
    assert [row[0].strip('| ') for row in rows] == ['7', '7-shipped']
    assert [row[2] for row in rows] == ['0, 5', '0']
    assert rows[0][3].startswith('35.0') and rows[0][9] == '26.0'
    assert rows[1][9] == '-'


def test_a_report_of_nothing(tmp_path: Path) -> None:
    write_report(PRESETS['tiny'], tmp_path / 'none', tmp_path)
    assert json.loads((tmp_path / 'results.json').read_text()) == []
    assert '0 seeds' in (tmp_path / 'RESULTS.md').read_text()


def test_a_seed_that_other_arms_have_is_missing() -> None:
    record = dict(preset='p', split='test', metric='segm_AP', value=0.1)
    records = [dict(record, arm='0', seed=0), dict(record, arm='0', seed=1)]
    records.append(dict(record, arm='3', seed=1))
    table = Table(records, 'p')
    assert missing_runs(table, {}, []) == ['arm-3-seed0']
    # An arm that the preset does not ask for may have any seeds.
    assert missing_runs(table, {}, ['0']) == []


def test_targets(out: Path) -> None:
    lines = target_table(Table(collect('tiny', out), 'tiny'))
    cells = [[cell.strip() for cell in line.split('|')] for line in lines if '|' in line]
    rows = {row[1]: row[4] for row in cells}
    # Seed 2 of arm 7 is not finished.
    assert {row[5] for row in cells[2:]} == {'0, 1'}
    assert rows['AP, arm 7 - arm 0'] == 'yes'
    assert rows['APr, arm 7 - arm 0'] == 'no'
    assert rows['recall of rare pseudo-labels, all unlabelled images'] == 'yes'
    assert rows['classes that arm 3 labels and arm 7 does not'] == 'no'
    assert rows['class-cond. ECE of pseudo-labels / arm 3'] == 'yes'


def test_targets_of_another_arm(out: Path) -> None:
    """On its own classifier, and not on that of arm 3."""
    for seed in range(3):
        make_run(out, '3-normed', seed, 0.25)
        make_run(out, '7-shipped', seed, 0.32)
    lines = target_table(Table(collect('p', out), 'p'), '7-shipped', '3-normed')
    rows = {row[1]: row[3] for row in ([c.strip() for c in line.split('|')] for line in lines)}
    assert rows['AP, arm 7-shipped - arm 3-normed'] == '**+7.0 [+7.0, +7.0]**'
    assert rows['class-cond. ECE of pseudo-labels / arm 3-normed'] == '1.00'
    assert 'AP, arm 7-shipped - arm 0' in rows and not any('arm 7 ' in row for row in rows)


def test_what_true_labels_bring_is_said(out: Path) -> None:
    assert bound_note(Table(collect('p', out), 'p')) == []
    for seed, shift in enumerate((0.0, 0.01, 0.03)):
        make_run(out, '0-true', seed, 0.30 + shift)
    (line,) = bound_note(Table(collect('p', out), 'p'))
    assert 'AP - arm 0 is **+10.0 [+10.0, +10.0]**, APr **+5.0 [+5.0, +5.0]**' in line
    # On its own classifier they are compared with that, too.
    for seed in (0, 1):
        make_run(out, '0-normed', seed, 0.22)
        make_run(out, '0-true-normed', seed, 0.32)
    said = bound_note(Table(collect('p', out), 'p'))
    assert said[0] == line
    assert ['arm 0-true-normed) AP - arm 0 is ' in text for text in said] == [False, True, False]
    assert 'AP - arm 0-normed is **+10.0 [+10.0, +10.0]**, APr **+5.0' in said[2]


def test_precision_is_pooled_over_seeds() -> None:
    found = {
        'rare_pseudo_per_image': (0.3, 0.1, 0.0),
        # Of 3, 1 and no labels.
        'rare_pseudo_precision': (2 / 3, 1.0, None),
    }
    table = Table(
        [
            dict(preset='p', arm='7', seed=i, split='unlabeled', metric=metric, value=value)
            for metric, values in found.items()
            for i, value in enumerate(values)
        ],
        'p',
    )
    assert pooled_precision(table, '7', 'unlabeled', 'rare') == pytest.approx(3 / 4)
    assert math.isnan(pooled_precision(table, '7', 'unlabeled', 'common'))


def test_rows_name_their_seeds_and_fixed_ap_where_it_differs() -> None:
    def record(arm: str, seed: int, metric: str, value: float) -> dict:
        return dict(preset='p', arm=arm, seed=seed, split='test', metric=metric, value=value)

    records = [record('0', s, f'segm_{m}', 0.2) for s in (0, 1, 2) for m in ('AP', 'AP_fixed')]
    records += [record('2', 2, 'segm_AP', 0.1), record('2', 2, 'segm_AP_fixed', 0.1)]
    # One seed lacks a column.
    records += [record('0', s, 'segm_APf', 0.3) for s in (0, 2)]
    lines = ap_table(Table(records, 'p'), 'test', 'segm')
    assert lines[0] == '| arm |  | seeds | AP | AP50 | APr | APc | APf |'
    assert [line.split(' | ')[2] for line in lines[2:]] == ['0, 1, 2', '2']
    assert '30.0 ± 0.0 (2 of 3)' in lines[2]
    records[1]['value'] = 0.21
    assert 'AP Fixed' in ap_table(Table(records, 'p'), 'test', 'segm')[0]


def test_mean_confidence_of_a_group() -> None:
    counts = torch.zeros(3, 3, 15)
    counts[0, 0, 3], counts[2, 0, 3] = 4, 1.0
    counts[0, 2, 14], counts[2, 2, 14] = 1, 0.95
    found = calibration_errors(counts, torch.tensor([1, 2, 1]))
    assert found['confidence_c'] == pytest.approx(1.95 / 5)
    assert math.isnan(found['confidence_r']) and math.isnan(found['confidence_f'])
