"""What a bench reports: records, the file that keeps them, and the page made from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed.timing import median_and_quartiles
from mmdet_softpl.atomic_json import write_json


@dataclass(frozen=True)
class Record:
    """One row of the table.

    Attributes:
        what: What was measured.
        against: What it is compared with; empty where a number stands for itself.
        case: Sizes.
        device: ``'cpu'`` or the name of a card.
        ratio: Median over the rounds; or the number itself.
        target: Largest value aimed at.
        spread: Lower and upper quartile over the rounds.
        rounds: How many.
        wall_ratio: The same by the clock, where ``ratio`` is of CPU time.
        note: Of a target that was missed, or of how it was measured.

    In the file a record may also have a ``remark``, written by hand; measuring anew drops it.
    """

    what: str
    against: str
    case: str
    device: str
    ratio: float
    target: float
    spread: list[float]
    rounds: int
    wall_ratio: float | None = None
    note: str = ''

    @property
    def key(self) -> tuple[str, str, str, str]:
        """A second run of the same bench takes the place of the first."""
        return self.what, self.against, self.case, self.device


def of_rounds(values: list[float], **kwargs) -> Record:
    """A record from the values of its rounds."""
    ratio, spread = median_and_quartiles(values)
    return Record(ratio=ratio, spread=spread, rounds=len(values), **kwargs)


def of_number(value: float, **kwargs) -> Record:
    """A record of what is exact: a count or a size."""
    return Record(ratio=value, spread=[value, value], rounds=1, **kwargs)


def update(path: Path, records: list[Record], run: dict) -> dict:
    """Put records into the file, in place of older ones of the same bench; returns its content.

    Args:
        path: ``results.json``.
        records: New ones.
        run: Date, commit and machine, kept with each of them.
    """
    content = json.loads(path.read_text()) if path.is_file() else {'records': []}
    fresh = {record.key for record in records}
    old = [r for r in content['records'] if _key(r) not in fresh]
    content['records'] = [*old, *({**asdict(record), **run} for record in records)]
    write_json(path, content, indent=1)
    return content


def _key(record: dict) -> tuple:
    return tuple(record[name] for name in ('what', 'against', 'case', 'device'))


def page(content: dict) -> str:
    """RESULTS.md."""
    lines = [
        '# Speed',
        '',
        'Written by `make bench-speed` from `results.json`. Each number is a ratio of two things '
        'that ran in turn in one process after a warm-up, or a count. On the CPU the ratio is of '
        'CPU time (all threads), which other processes do not lengthen; "clock" is the same by '
        'the clock, and on a busy machine it says little. On a GPU it is of the time between two '
        'events. Spread: quartiles over the rounds (extremes of fewer than four).',
        '',
        '| what | against | case | ratio | spread | clock | target | | commit |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for r in content['records']:
        clock = '' if r['wall_ratio'] is None else f'{r["wall_ratio"]:.2f}'
        low, high = r['spread']
        spread = '' if r['rounds'] == 1 else f'{low:.3g} to {high:.3g} ({r["rounds"]})'
        met = 'met' if r['ratio'] <= r['target'] else '**missed**'
        lines.append(
            f'| {r["what"]} | {r["against"]} | {r["case"]}, {r["device"]} | {r["ratio"]:.3g} '
            f'| {spread} | {clock} | {r["target"]:g} | {met} | {r["commit"]} |'
        )
    notes = [r for r in content['records'] if r['note']]
    if notes:
        lines += ['', '## Notes', '']
        lines += [f'- {r["what"]} ({r["case"]}, {r["device"]}): {r["note"]}' for r in notes]
    remarks = [r for r in content['records'] if r.get('remark')]
    if remarks:
        lines += ['', '## Remarks, written by hand', '']
        lines += [f'- {r["what"]} ({r["case"]}, {r["device"]}): {r["remark"]}' for r in remarks]
    runs = sorted({(r['date'], r['commit'], r['machine'], r['load']) for r in content['records']})
    lines += ['', '## Where and when', '']
    lines += [
        f'- {date}, commit {commit}: {machine}, load {load}' for date, commit, machine, load in runs
    ]
    return '\n'.join(lines) + '\n'
