"""Print and save the decision bench: `python -m benchmarks.decision.run`.

Writes ``results.json`` (records with ``regime``, ``claim``, ``arm``, ``seed``, ``metric``,
``value``) and ``RESULTS.md`` made from it, beside this file.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import sys
from datetime import date
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.decision.claims import CLAIMS
from benchmarks.decision.world import WorldConfig
from mmdet_softpl.atomic_json import write_json

HERE = Path(__file__).resolve().parent
REGIMES = {
    'clear': WorldConfig(),
    'look-alike, over-fitted': WorldConfig(
        dim=128,
        noise=1.0,
        sibling_spread=0.3,
        family_spread=0.5,
        background_ratio=0.5,
        weight_decay=1e-7,
    ),
    # About as many labelled samples as in `clear`, spread otherwise.
    'clear, short tail': WorldConfig(exponent=0.6, largest=90),
    'clear, long tail': WorldConfig(exponent=1.8, largest=590),
}
Records = list[dict[str, object]]


def measure(seeds: int, regimes: dict[str, WorldConfig] = REGIMES) -> Records:
    """All claims in all regimes."""
    jobs = [
        (regime, claim, seed) for regime in regimes for claim in CLAIMS for seed in range(seeds)
    ]
    records: Records = []
    for regime, claim, seed in track(jobs, description='decision bench'):
        for arm, metrics in CLAIMS[claim](regimes[regime], seed).items():
            for metric, value in metrics.items():
                records.append(
                    dict(regime=regime, claim=claim, arm=arm, seed=seed, metric=metric, value=value)
                )
    return records


def table(records: Records) -> str:
    """Markdown: mean and standard deviation over the seeds."""
    lines: list[str] = []
    for regime in _unique(records, 'regime'):
        lines += [f'## {regime}', '']
        for claim in _unique(records, 'claim'):
            mine = [r for r in records if r['regime'] == regime and r['claim'] == claim]
            metrics = _unique(mine, 'metric')
            lines += [
                f'**{claim}**',
                '',
                f'| | {" | ".join(metrics)} |',
                '|---' * (len(metrics) + 1) + '|',
            ]
            for arm in _unique(mine, 'arm'):
                cells = [
                    _cell([r['value'] for r in mine if r['arm'] == arm and r['metric'] == metric])
                    for metric in metrics
                ]
                lines.append(f'| {arm} | {" | ".join(cells)} |')
            lines.append('')
    return '\n'.join(lines)


def _unique(records: Records, key: str) -> list[str]:
    return list(dict.fromkeys(str(record[key]) for record in records))


def _cell(values: list) -> str:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return '-'
    spread = statistics.stdev(finite) if len(finite) > 1 else 0.0
    return f'{statistics.mean(finite):.3f} ± {spread:.3f}'


def main() -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seeds', type=int, default=20)
    parser.add_argument('--out', type=Path, default=HERE, help='folder of the two files')
    args = parser.parse_args()
    # Made first: a folder that cannot be must not cost the run.
    args.out.mkdir(parents=True, exist_ok=True)
    records = measure(args.seeds)
    write_json(args.out / 'results.json', records)
    head = (
        '# Decision bench\n\n'
        f'Made by `python -m benchmarks.decision.run --seeds {args.seeds}` on {date.today()}, '
        f'torch {torch.__version__}, {platform.machine()}, CPU. '
        'Mean ± standard deviation over seeds.\n\n'
    )
    text = head + table(records)
    (args.out / 'RESULTS.md').write_text(text)
    print(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
