"""Records of finished runs, and arithmetic over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

from mmdet_softpl.run_records import AUDIT_FILE

from .arms import ARMS, MAIN_ARMS
from .data import SPLITS
from .job import REBALANCED_FILE, Job
from .knobs import KNOBS
from .runs import jobs_in

Record = dict[str, Any]
SUPERVISED, ONE_HOT_TEACHER = '0', '3'
CONFIDENCE = 0.95


def collect(preset: str, out: Path) -> list[Record]:
    """Records of the runs in a folder, whatever is there.

    Splits are ``tune`` and ``test`` (metrics of ``LongTailMetric``), ``unlabeled_all`` and
    ``unlabeled`` (pseudo-labels of the last teacher on all unlabelled images and on the sample of
    the curves, against the hidden labels) and ``train`` (cost). ``rebalanced_gamma``, the interval
    ``rebalanced_bbox_AP_gain_low`` and ``_high``, and ``rebalanced_segm_AP`` and the like are of
    the trained arm with shifted class biases.

    Returns:
        Dicts with ``preset``, ``arm``, ``seed``, ``split``, ``metric``, ``value``; a value that
        is not a number (no class to judge) is None.
    """
    records: list[Record] = []
    kept: dict[tuple[str, int], set[str]] = {}
    for job in jobs_in(out):
        folder = job.folder(out)

        def add(split: str, values: Mapping[str, Any], job: Job = job) -> None:
            for metric, value in values.items():
                if value is None or isinstance(value, (int, float)):
                    records.append(
                        dict(
                            preset=preset,
                            arm=job.arm,
                            seed=job.seed,
                            split=split,
                            metric=metric,
                            value=value,
                        )
                    )

        for split in SPLITS:
            add(split, _read(folder / f'{split}.json').get('metrics', {}))
        pseudo = _read(folder / 'pseudo.json')
        for split, part in (('unlabeled', 'sample'), ('unlabeled_all', 'all')):
            found = pseudo.get(part, {})
            add(split, found.get('quality', {}))
            for kind in ('pseudo', 'object', 'object_raw'):
                errors = found.get(kind, {}).get('errors', {})
                add(split, {f'{kind}_{key}': value for key, value in errors.items()})
        if pseudo:
            quality = pseudo['sample']['quality']
            kept[job.arm, job.seed] = set(quality['per_class']) - set(quality['never_labelled'])
        audit = _read(folder / AUDIT_FILE)
        if audit and audit['unlabelled_images_seen']:
            never = sum(len(group['never_labelled']) for group in audit['groups'].values())
            add('unlabeled', {'never_labelled_in_training': never})
        add('train', _read(folder / 'cost.json'))
        shifted = _read(folder / REBALANCED_FILE)
        if shifted:
            low, high = shifted['interval']
            choice = dict(gamma=shifted['gamma'], bbox_AP_gain_low=low, bbox_AP_gain_high=high)
            for split, values in (('tune', choice), *shifted['metrics'].items()):
                add(split, {f'rebalanced_{key}': value for key, value in values.items()})
    for (arm, seed), classes in kept.items():
        if (ONE_HOT_TEACHER, seed) in kept:
            lost = len(kept[ONE_HOT_TEACHER, seed] - classes)
            records.append(
                dict(
                    preset=preset,
                    arm=arm,
                    seed=seed,
                    split='unlabeled',
                    metric='classes_labelled_by_3_alone',
                    value=lost,
                )
            )
    return records


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def merged(
    old: Iterable[Record], new: Iterable[Record], preset: str, carried: Container[tuple[str, int]]
) -> list[Record]:
    """``new`` with what ``old`` has of other presets and of the runs that are carried over.

    Args:
        old: Records there were.
        new: Records of ``preset``.
        preset: Its name.
        carried: Arm and seed of the runs of the preset whose old records count.
    """

    def is_carried(record: Record) -> bool:
        return (record['arm'], record['seed']) in carried

    others = [record for record in old if record['preset'] != preset]
    kept = [record for record in old if record['preset'] == preset and is_carried(record)]
    fresh = [record for record in new if not is_carried(record)]
    order = list(ARMS)
    # Stable: splits and metrics stay in their order.
    mine = sorted([*kept, *fresh], key=lambda r: (order.index(r['arm']), r['seed']))
    return others + mine


def _is_no_ap(record: Record) -> bool:
    """Whether it is an AP of nothing, not a difference of two."""
    metric = record['metric']
    return '_AP' in metric and '_gain_' not in metric and record['value'] < 0


class Table:
    """Values by arm and seed of one preset.

    Args:
        records: Of any presets. Of None and of an AP below 0 (-1: no object of that group) a seed
            has no value.
        preset: The one.
    """

    def __init__(self, records: Iterable[Record], preset: str) -> None:
        self._values: dict[tuple[str, str, str], dict[int, float]] = {}
        arms, seeds = set(), set()
        for record in records:
            if record['preset'] != preset:
                continue
            arms.add(record['arm'])
            seeds.add(record['seed'])
            if record['value'] is not None and not _is_no_ap(record):
                key = (record['arm'], record['split'], record['metric'])
                self._values.setdefault(key, {})[record['seed']] = float(record['value'])
        self.arms = [arm for arm in MAIN_ARMS if arm in arms]
        self.knob_arms = [arm for arm in ARMS if arm in arms and arm not in MAIN_ARMS]
        self.seeds = sorted(seeds)

    def by_seed(self, arm: str, split: str, metric: str) -> dict[int, float]:
        """Value of each seed that has one."""
        return dict(self._values.get((arm, split, metric), {}))


def turned_arms(table: Table) -> list[str]:
    """Arms of which a knob was turned."""
    turned = {ARMS[arm].previous for arm in table.knob_arms}
    return [arm for arm in KNOBS if arm in turned]


def knob_results(
    table: Table, turned: str, metric: str
) -> dict[str, dict[float, dict[int, float]]]:
    """A metric on ``tune`` by knob, value and seed; values ascending, the default among them.

    The default's are of the seeds in which the knob of the arm ``turned`` was turned.
    """
    found: dict[str, dict[float, dict[int, float]]] = {}
    for arm in table.knob_arms:
        setting = ARMS[arm].knob
        assert setting is not None
        if ARMS[arm].previous == turned:
            name, value = setting
            found.setdefault(name, {})[value] = table.by_seed(arm, 'tune', metric)
    default = table.by_seed(turned, 'tune', metric)
    for name, results in found.items():
        seeds = {seed for by_seed in results.values() for seed in by_seed}
        mine = {seed: value for seed, value in default.items() if seed in seeds}
        results[KNOBS[turned][name].default] = mine
    return {name: dict(sorted(results.items())) for name, results in found.items()}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n seeds; NaN where there is none."""

    mean: float
    deviation: float
    n: int


def spread(values: Iterable[float]) -> Spread:
    """Mean and spread of values."""
    known = list(values)
    if not known:
        return Spread(math.nan, math.nan, 0)
    deviation = statistics.stdev(known) if len(known) > 1 else math.nan
    return Spread(statistics.mean(known), deviation, len(known))


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over n seeds with its confidence interval (NaN for n < 2)."""

    mean: float
    low: float
    high: float
    n: int


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference:
    """a - b over the seeds that both have; t interval of 95 % with n - 1 degrees of freedom."""
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    found = spread(differences)
    if found.n < 2:
        return Difference(found.mean, math.nan, math.nan, found.n)
    factor = float(student_t.ppf((1 + CONFIDENCE) / 2, found.n - 1))
    half = factor * found.deviation / math.sqrt(found.n)
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)


def mean_ratio(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """Mean of a / b over the seeds that both have; NaN if there is none."""
    ratios = [a[seed] / b[seed] for seed in a.keys() & b.keys() if b[seed]]
    return statistics.mean(ratios) if ratios else math.nan
