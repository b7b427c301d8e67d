"""The tables of the README and of the evidence page say what the results files say."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from benchmarks.decision.run import REGIMES
from benchmarks.decision.world import World
from benchmarks.longtail.knobs import KNOBS
from benchmarks.longtail.rebalance_table import METRICS
from benchmarks.longtail.report import results_text
from benchmarks.longtail.results import Table, paired_difference, spread
from benchmarks.longtail.tables import percent

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / 'README.md', REPOSITORY / 'docs' / 'evidence.md']
PRESETS = ('cpu-45-labeled', 'cpu-225-labeled', 'cpu', 'cpu-2250-labeled')
Decisions = dict[tuple[str, str, str], float]
HEAD = '| | seeds | AP | APr | APc | APf |'


@pytest.fixture(scope='module')
def table() -> Table:
    records = json.loads((REPOSITORY / 'benchmarks' / 'longtail' / 'results.json').read_text())
    return Table(records, 'cpu')


@pytest.fixture(scope='module')
def decisions() -> Decisions:
    """Means over the seeds of the decision bench, by regime, arm and metric."""
    records = json.loads((REPOSITORY / 'benchmarks' / 'decision' / 'results.json').read_text())
    values: dict[tuple[str, str, str], list[float]] = {}
    for record in records:
        key = record['regime'], record['arm'], record['metric']
        # A group without a class has none.
        if record['value'] is not None:
            values.setdefault(key, []).append(record['value'])
    return {key: statistics.mean(seeds) for key, seeds in values.items()}


def scores_of(table: Table, arm: str, split: str, seed: int) -> str:
    """Mask AP / APr, as the pages write them."""
    values = (table.by_seed(arm, split, metric)[seed] for metric in METRICS[:2])
    return ' / '.join(f'{100 * value:.1f}' for value in values)


def rows_below(page: Path, head: str) -> list[list[str]]:
    """Cells of the table with that head."""
    _, rest = page.read_text(encoding='utf-8').split(head + '\n')
    lines = rest.split('\n\n')[0].splitlines()[1:]
    return [[cell.strip(' *') for cell in line.strip('|').split('|')] for line in lines]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_average_precisions(page: Path, table: Table) -> None:
    rows = rows_below(page, HEAD)
    assert len(rows) >= 5
    for title, seeds, *cells in rows:
        (arm,) = re.findall(r'\(arm ([\w.-]+)\)', title)
        found = [table.by_seed(arm, 'test', f'segm_{name}') for name in ('AP', 'APr', 'APc', 'APf')]
        assert cells == [percent(spread(by_seed.values())) for by_seed in found], title
        assert int(seeds) == len(found[0]), title


def test_common_practice() -> None:
    """AP / APr of seed 2 by classifier, loss and sampling, which name their arms."""
    records = json.loads((REPOSITORY / 'benchmarks' / 'longtail' / 'results.json').read_text())
    table = Table(records, 'cpu')
    head = '| | labelled images alone | one-hot teacher | the method, `unsup_weight=2` |'
    rows = rows_below(PAGES[1], head)
    assert len(rows) == 4
    for title, *cells in rows:
        arms = re.findall(r'\(arms (\S+), (\S+), (\S+)\)', title)[0]
        for arm, cell in zip(arms, cells, strict=True):
            found = [table.by_seed(arm, 'test', f'segm_{name}').get(2) for name in ('AP', 'APr')]
            measured = ' / '.join(f'{100 * v:.1f}' for v in found if v is not None)
            assert cell == (measured or 'not measured'), arm


def test_pasted_objects(table: Table) -> None:
    """AP / APr by seed without pasted objects, with them in labelled images and in all."""
    head = (
        '| mask AP / APr on `test` | seed | as above | pasted into labelled images | '
        'into unlabelled ones, too |'
    )
    rows = rows_below(PAGES[1], head)
    assert len(rows) >= 5
    arms: list[str] = []
    for title, seed, *cells in rows:
        arms = re.findall(r'\(arms (.*)\)', title)[0].split(', ') if title else arms
        for arm, cell in zip(arms, cells, strict=False):
            known = int(seed) in table.by_seed(arm, 'test', 'segm_AP')
            measured = scores_of(table, arm, 'test', int(seed)) if known else 'not measured'
            assert cell == measured, (arm, seed)
        # Without unlabelled images there is nothing else to paste into.
        assert cells[len(arms) :] == ['-'] * (3 - len(arms))


def leads(table: Table, arm: str, other: str, prefix: str = '') -> list[str]:
    """Mean difference in AP and in APr on `test`, with the interval that three seeds give."""
    cells = []
    for metric in METRICS[:2]:
        found = paired_difference(
            table.by_seed(arm, 'test', prefix + metric),
            table.by_seed(other, 'test', prefix + metric),
        )
        # No -0.0.
        mean, low, high = (round(100 * v, 1) + 0.0 for v in (found.mean, found.low, found.high))
        interval = f' ({low:+.1f} to {high:+.1f})' if found.n > 2 else ''
        cells.append(f'{mean:+.1f}{interval}')
    return cells


def test_what_pasted_objects_bring(table: Table) -> None:
    """The sentences on them: means over the seeds, and single figures of seed 2."""

    def gain(arm: str, other: str, prefix: str = '') -> str:
        ap, apr = leads(table, arm, other, prefix)
        return f'{ap} AP and {apr} APr'

    def one(arm: str, other: str) -> str:
        """Of seed 2."""
        found = [
            100 * (table.by_seed(arm, 'test', m)[2] - table.by_seed(other, 'test', m)[2])
            for m in METRICS[:2]
        ]
        return f'{found[0]:.1f} and {found[1]:.1f}'

    def kept(arm: str, metric: str) -> float:
        return table.by_seed(arm, 'unlabeled_all', metric)[2]

    def rare(arm: str) -> str:
        count, precision, recall = (
            kept(arm, f'rare_pseudo_{name}') for name in ('count', 'precision', 'recall')
        )
        return f'{count:.0f}, precision {precision:.2f}, recall {recall:.3f}'

    page = PAGES[1].read_text(encoding='utf-8')
    for sentence in (
        f'labelled images alone gain {gain("0-pasted", "0-normed")},',
        f'one-hot labels gain {gain("3-pasted-all", "3-shipped")};',
        f'the method gains {gain("7-pasted-all", "7-shipped")}.',
        f'It is then {gain("7-pasted-all", "0-pasted")} ahead of labelled images alone',
        f'and {gain("7-pasted-all", "3-pasted-all")} ahead of one-hot labels on the same images',
        f'objects in unlabelled images bring the method {gain("7-pasted-all", "7-pasted")} of it, '
        f'one-hot labels {gain("3-pasted-all", "3-pasted")}',
        f'all of it together is {gain("7-pasted-all", "0")}: in seed 2 the classifier has '
        f'{one("0-normed", "0")} of it, objects in labelled images {one("0-pasted", "0-normed")}, '
        f'the method with objects in unlabelled ones {one("7-pasted-all", "0-pasted")}.',
        f'without pasted objects {rare("7-shipped")}; with objects in labelled images '
        f'{rare("7-pasted")}; in all images {rare("7-pasted-all")}.',
        f'class-conditional error of kept labels {kept("7-pasted-all", "pseudo_cc_ece"):.3f} '
        f'(objects in labelled images {kept("7-pasted", "pseudo_cc_ece"):.3f}, none '
        f'{kept("7-shipped", "pseudo_cc_ece"):.3f}), where that of one-hot labels is '
        f'{kept("3-pasted-all", "pseudo_cc_ece"):.3f} ({kept("3-pasted", "pseudo_cc_ece"):.3f}, '
        f'{kept("3-shipped", "pseudo_cc_ece"):.3f})',
        'on all of it the method comes to '
        f'{scores_of(table, "7-pasted-all", "tune", 2)} instead of '
        f'{scores_of(table, "7-pasted", "tune", 2)}, one-hot labels to '
        f'{scores_of(table, "3-pasted-all", "tune", 2)} instead of '
        f'{scores_of(table, "3-pasted", "tune", 2)}.',
        f'Over all objects it is {kept("7-pasted-all", "object_cc_ece"):.3f}, that of one-hot '
        f'labels {kept("3-pasted-all", "object_cc_ece"):.3f}.',
    ):
        assert sentence in page, sentence
    shifted = [
        gain('7-pasted-all', other, 'rebalanced_').replace(' AP and ', ' and ').removesuffix(' APr')
        for other in ('0-pasted', '3-pasted-all')
    ]
    assert f'is {shifted[0]} over none, and {shifted[1]} over one-hot ones' in page
    _, apr = leads(table, '7-pasted-all', '3-pasted-all')
    assert f'with pasted objects on both sides {apr}' in page
    (_, over_all), (_, over_same) = (
        leads(table, '7-pasted-all', other) for other in ('0', '0-pasted')
    )
    assert f'as the shipped configs have them: {over_all} in three seeds ({over_same} over' in page


def test_pasting_was_decided_on_tune() -> None:
    """Last points of the curves, on 200 images."""
    path = REPOSITORY / 'benchmarks' / 'longtail' / 'runs.json'
    runs = json.loads(path.read_text())['cpu']['runs']
    ends = []
    for arm in ('7-pasted-all', '7-pasted'):
        curves = runs[f'arm-{arm}-seed2']['curves']
        ends.append(' / '.join(f'{100 * curves[m][1][-1]:.1f}' for m in METRICS[:2]))
    sentence = f'was decided on 200 images of `tune` in seed 2: {ends[0]} instead of {ends[1]};'
    assert sentence in PAGES[1].read_text(encoding='utf-8')


def test_labelled_images() -> None:
    """AP / APr of seed 2 by number of labelled images."""
    records = json.loads((REPOSITORY / 'benchmarks' / 'longtail' / 'results.json').read_text())
    head = (
        '| | 45 labelled, each seen 711 times before the others come | 225, seen 142 times | '
        '500, seen 64 times | 2,250, seen 14 times |'
    )
    rows = rows_below(PAGES[1], head)
    assert len(rows) == 6
    for title, *cells in rows:
        (arm,) = re.findall(r'\(arm ([\w.-]+)\)', title)
        for preset, cell in zip(PRESETS, cells, strict=True):
            table = Table(records, preset)
            found = [table.by_seed(arm, 'test', f'segm_{name}').get(2) for name in ('AP', 'APr')]
            texts = ['not measured' if v is None else f'{100 * v:.1f}' for v in found]
            assert cell == (' / '.join(texts) if found[0] is not None else texts[0]), (arm, preset)


def test_tail_and_length() -> None:
    """AP / APr of a preset and a seed by column."""
    records = json.loads((REPOSITORY / 'benchmarks' / 'longtail' / 'results.json').read_text())
    columns = {
        'as above, seed 2': ('cpu', 2),
        'shorter tail, seed 2': ('cpu-min-5', 2),
        'as above, seed 1': ('cpu', 1),
        'twice as long, seed 1': ('cpu-long', 1),
    }
    rows = rows_below(PAGES[1], f'| | {" | ".join(columns)} |')
    assert len(rows) == 4
    for title, *cells in rows:
        (arm,) = re.findall(r'\(arm ([\w.-]+)\)', title)
        for (preset, seed), cell in zip(columns.values(), cells, strict=True):
            table = Table(records, preset)
            found = [table.by_seed(arm, 'test', key).get(seed) for key in METRICS[:2]]
            measured = ' / '.join(f'{100 * v:.1f}' for v in found if v is not None)
            assert cell == (measured or 'not measured'), (arm, preset)


def test_knobs(table: Table) -> None:
    """AP / APr of seed 2 on `tune`, one knob of what is shipped at a time."""
    rows = rows_below(PAGES[1], '| | lower | shipped | higher |')
    assert len(rows) == 5
    for title, *cells in rows:
        name, *values = re.findall(r'`(\w+)` ([\d.]+), ([\d.]+), ([\d.]+)', title)[0]
        default = f'{KNOBS["7-shipped"][name].default:g}'
        assert values[1] == default
        for value, cell in zip(values, cells, strict=True):
            arm = '7-shipped' if value == default else f'7-shipped-{name}-{value}'
            found = [table.by_seed(arm, 'tune', f'segm_{metric}')[2] for metric in ('AP', 'APr')]
            assert cell == ' / '.join(f'{100 * one:.1f}' for one in found), arm


def test_rebalancing(table: Table) -> None:
    """Strength, interval, and AP / APr on `test` without and with shifted class biases."""
    head = '| | seed | strength | half of `tune`: box AP | `test`: as it is | `test`: rebalanced |'
    rows = rows_below(PAGES[1], head)
    measured = [
        (arm, seed) for arm in table.arms for seed in table.by_seed(arm, 'tune', 'rebalanced_gamma')
    ]
    found = []
    arm = ''
    for title, seed, *cells in rows:
        arm = re.findall(r'\(arm ([\w.-]+)\)', title)[0] if title else arm
        found.append((arm, int(seed)))

        def value(split: str, metric: str, arm: str = arm, seed: int = int(seed)) -> float:
            return table.by_seed(arm, split, metric)[seed]

        low, high = (
            100 * value('tune', f'rebalanced_bbox_AP_gain_{end}') for end in ('low', 'high')
        )
        pairs = [
            ' / '.join(f'{100 * value("test", prefix + metric):.1f}' for metric in METRICS[:2])
            for prefix in ('', 'rebalanced_')
        ]
        strength = f'{value("tune", "rebalanced_gamma"):g}'
        assert cells == [strength, f'{low:+.1f} to {high:+.1f}', *pairs], (arm, seed)
    assert sorted(found) == sorted(measured)


def test_smoothing_alone(table: Table) -> None:
    """The sentences on labelled images alone and a normalised classifier."""
    found = {}
    for name in ('AP', 'APr', 'APf'):
        pairs = [table.by_seed(arm, 'test', f'segm_{name}') for arm in ('2-normed', '0-normed')]
        found[name] = paired_difference(*pairs)
        assert found[name].n == 3
    mean = {name: f'{100 * abs(value.mean):.1f}' for name, value in found.items()}
    ends = {n: f'{100 * v.low:+.1f} to {100 * v.high:+.1f}' for n, v in found.items()}
    readme, page = (path.read_text(encoding='utf-8') for path in PAGES)
    assert (
        f'normalised classifier {mean["AP"]} / {mean["APr"]} in three seeds, with 95 % intervals '
        f'of {ends["AP"]} and {ends["APr"]}, for {mean["APf"]} APf'
    ) in readme
    assert (
        f'brings {mean["AP"]} AP (95 % interval {ends["AP"]}) and {mean["APr"]} APr ({ends["APr"]};'
    ) in page
    assert f'takes {mean["APf"]} from frequent classes ({ends["APf"]})' in page


def test_two_views(table: Table) -> None:
    """The sentences on what is shipped without the mirror image."""
    shipped, plain = '7-shipped', '7-shipped-mirror-0'

    def scores(arm: str, split: str) -> str:
        *first, last = (scores_of(table, arm, split, seed) for seed in range(3))
        return f'{", ".join(first)} and {last}'

    def gain(split: str, metric: str) -> str:
        found = paired_difference(*(table.by_seed(arm, split, metric) for arm in (shipped, plain)))
        ends = ' to '.join(f'{100 * end:+.1f}' for end in (found.low, found.high))
        return f'{100 * found.mean:.1f} AP{metric[7:]} ({ends})'

    def mean(arm: str, metric: str) -> float:
        return statistics.mean(table.by_seed(arm, 'unlabeled_all', metric).values())

    cost = [table.by_seed(arm, 'train', 'semi_cpu_seconds') for arm in (shipped, plain)]
    page = PAGES[1].read_text(encoding='utf-8').replace('95 % interval ', '')
    for sentence in (
        *(
            f'{start} to {scores(plain, split)}, with it to {scores(shipped, split)}'
            for start, split in (('comes on `tune`', 'tune'), ('on `test`', 'test'))
        ),
        *(f'{gain(s, METRICS[0])} and {gain(s, METRICS[1])} on `{s}`' for s in ('tune', 'test')),
        f'takes {cost[0][0] / cost[1][0]:.2f} and {cost[0][2] / cost[1][2]:.2f} times the CPU time',
        f'precision {mean(shipped, "rare_pseudo_precision"):.2f} instead of '
        f'{mean(plain, "rare_pseudo_precision"):.2f}, recall '
        f'{mean(shipped, "rare_pseudo_recall"):.3f} instead of '
        f'{mean(plain, "rare_pseudo_recall"):.3f}',
        f'error {mean(shipped, "pseudo_cc_ece"):.3f} with it, '
        f'{mean(plain, "pseudo_cc_ece"):.3f} without',
    ):
        assert sentence in page, sentence


def test_prototypes_and_sharper_labels(table: Table) -> None:
    """The sentences on what is shipped without the ones (two seeds), with the others (seed 2)."""

    def value(knob: str, split: str, metric: str, seed: int = 2) -> float:
        return table.by_seed(f'7-shipped{knob}', split, metric)[seed]

    def scores(knob: str, split: str, seed: int = 2) -> str:
        return scores_of(table, f'7-shipped{knob}', split, seed)

    def two(knob: str, split: str) -> str:
        return f'{scores(knob, split, 0)} and {scores(knob, split)}'

    def kept(knob: str, name: str) -> float:
        return value(knob, 'unlabeled_all', name)

    none = '-prototype_weight-0'
    quarter, half, double = (f'-label_temperature-{t}' for t in (0.25, 0.5, 2))
    gains = {
        (split, name): 100
        * statistics.mean(
            value('', split, name, seed) - value(none, split, name, seed) for seed in (0, 2)
        )
        for split in ('tune', 'test')
        for name in METRICS[:2]
    }
    tune, test = (
        ' and '.join(
            f'{gains[split, name]:.1f}{unit}' for name, unit in zip(METRICS[:2], units, strict=True)
        )
        for split, units in (('tune', (' AP', ' APr')), ('test', ('', '')))
    )
    page = PAGES[1].read_text(encoding='utf-8')
    for sentence in (
        f'comes on `tune` to {two(none, "tune")}, with it to {two("", "tune")}, on `test` to '
        f'{two(none, "test")}, with it to {two("", "test")}.',
        f'{tune} on `tune`, {test} on `test`',
        f'{kept("", "rare_pseudo_count"):.0f}, precision {kept("", "rare_pseudo_precision"):.2f}, '
        f'instead of {kept(none, "rare_pseudo_count"):.0f}, '
        f'{kept(none, "rare_pseudo_precision"):.2f})',
        f'comes to {scores(half, "tune")} on `tune` at T = 0.5 and to {scores(quarter, "tune")} at '
        f'T = 0.25, on `test` to {scores(half, "test")} and {scores(quarter, "test")}',
        f'{kept(half, "pseudo_cc_ece"):.3f} and {kept(quarter, "pseudo_cc_ece"):.3f} instead of '
        f'{kept("", "pseudo_cc_ece"):.3f}',
        f'at T = 2 it comes to {scores(double, "tune")} on `tune` and {scores(double, "test")} on '
        f'`test`, and the error of kept labels is {kept(double, "pseudo_cc_ece"):.3f}:',
    ):
        assert sentence in page, sentence


def test_leads_in_the_readme(table: Table) -> None:
    """What is shipped, and that without pasted objects, minus others in the same seeds."""
    wanted = {
        'labelled images alone, plain classifier': ('7-pasted-all', '0', ''),
        'labelled images alone, with both': ('7-pasted-all', '0-pasted', ''),
        'one-hot labels, with both': ('7-pasted-all', '3-pasted-all', ''),
        'one-hot labels, with both, rebalanced': ('7-pasted-all', '3-pasted-all', 'rebalanced_'),
        'one-hot labels, neither with pasted objects': ('7-shipped', '3-shipped', ''),
        'one-hot labels, the same rebalanced': ('7-shipped', '3-shipped', 'rebalanced_'),
    }
    rows = rows_below(PAGES[0], '| | seeds | AP (95 % interval) | APr (95 % interval) |')
    assert [title for title, *_ in rows] == list(wanted)
    for title, seeds, *cells in rows:
        arm, other, prefix = wanted[title]
        known = [table.by_seed(name, 'test', prefix + METRICS[0]) for name in (arm, other)]
        assert int(seeds) == len(known[0].keys() & known[1].keys()), title
        assert cells == leads(table, arm, other, prefix), title
    # The same in words: the lead on pasted images, and without pasted objects.
    texts = [page.read_text(encoding='utf-8') for page in PAGES]
    (ap, apr), (plain_ap, plain_apr) = (
        [cell.split()[0].lstrip('+') for cell in leads(table, *pair)]
        for pair in (('7-pasted-all', '3-pasted-all'), ('7-shipped', '3-shipped'))
    )
    assert f"the method's lead over one-hot labels {ap} AP and {apr} APr are left" in texts[0]
    assert f'by {plain_ap} AP and {plain_apr} APr, by {ap} and {apr} where both have' in texts[1]
    # "Nothing" is what two runs of one seed differ by, and less.
    for cell in leads(table, '7-pasted-all', '3-pasted-all', 'rebalanced_'):
        assert abs(float(cell.split()[0])) < 0.2


def test_length_of_the_tail(decisions: Decisions) -> None:
    """Recall / precision of rare labels in the decision bench, means over its seeds."""
    head = (
        '| | fewest and most samples of a class | one threshold | thresholds per class | '
        'and prototypes |'
    )
    regimes = ('clear, short tail', 'clear', 'clear, long tail')
    arms = ('one threshold', 'thresholds', 'prototypes, thresholds')
    for regime, (_, counts, *cells) in zip(regimes, rows_below(PAGES[1], head), strict=True):
        drawn = World(REGIMES[regime], 0).counts
        assert counts == f'{int(drawn.min())}, {int(drawn.max())}'
        for arm, cell in zip(arms, cells, strict=True):
            means = [decisions[regime, arm, f'{name}_rare'] for name in ('recall', 'precision')]
            assert cell == ' / '.join(f'{mean:.2f}' for mean in means), (regime, arm)


def test_decision(decisions: Decisions) -> None:
    """Before and after, among clear classes and among over-fitted look-alikes."""
    head = '| | before | after | look-alikes over-fitted: before | after |'
    labels, errors = rows_below(PAGES[1], head)
    for regime, place in (('clear', 1), ('look-alike, over-fitted', 3)):
        for column, arm in enumerate(('one threshold', 'prototypes, thresholds')):
            found = [decisions[regime, arm, f'{name}_rare'] for name in ('recall', 'precision')]
            assert labels[place + column] == ' / '.join(f'{value:.2f}' for value in found)
        for column, arm in enumerate(('none', 'on held-out samples')):
            assert errors[place + column] == f'{decisions[regime, arm, "cc_ece"]:.3f}'


def test_the_results_page_is_made_of_the_results() -> None:
    folder = REPOSITORY / 'benchmarks' / 'longtail'
    records = json.loads((folder / 'results.json').read_text())
    about = json.loads((folder / 'runs.json').read_text())
    written = (folder / 'RESULTS.md').read_text(encoding='utf-8')
    assert written == results_text(records, about, folder)


def test_the_page_of_tune(table: Table) -> None:
    """What trainings came to, beside proxies that a command prints and no file holds."""
    page = REPOSITORY / 'docs' / 'tune.md'
    head = '| arm | proxy | likelihood | F1 | AP, `tune` | APr, `tune` | AP, `test` | APr, `test` |'
    rows = rows_below(page, head)
    proxies = [float(row[1]) for row in rows]
    assert proxies == sorted(proxies) and len(rows) > 5
    for arm, proxy, likelihood, f1, *scores in rows:
        assert (float(likelihood) * float(f1)) ** 0.5 == pytest.approx(float(proxy), abs=2e-3)
        found = [
            table.by_seed(arm, split, metric).get(2)
            for split in ('tune', 'test')
            for metric in METRICS[:2]
        ]
        assert scores == ['-' if value is None else f'{100 * value:.1f}' for value in found], arm

    for arm in ('7-shipped-tuned', '7-shipped'):
        for split in ('tune', 'test'):
            scores = ' and '.join(scores_of(table, arm, split, seed) for seed in (0, 2))
            assert scores in page.read_text(encoding='utf-8'), (arm, split)

    records = json.loads((REPOSITORY / 'benchmarks' / 'longtail' / 'results.json').read_text())
    few = Table(records, 'cpu-225-labeled')
    text = page.read_text(encoding='utf-8')
    for split in ('tune', 'test'):
        tuned, shipped = (
            scores_of(few, arm, split, 2) for arm in ('7-shipped-tuned-225', '7-shipped')
        )
        assert f'{tuned} on `{split}` instead of {shipped}' in text
    for metric in ('precision', 'recall'):
        tuned, shipped = (
            few.by_seed(arm, 'unlabeled_all', f'rare_pseudo_{metric}')[2]
            for arm in ('7-shipped-tuned-225', '7-shipped')
        )
        assert f'{metric} {tuned:.3f} instead of {shipped:.3f}' in text
