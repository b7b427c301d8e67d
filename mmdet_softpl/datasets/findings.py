"""What an inspection says about data: findings, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ERROR, WARNING = 'error', 'warning'


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or doubtful.

    Attributes:
        severity: ``'error'`` where the training would stop, wait for ever or learn something
            else than was meant, ``'warning'`` otherwise.
        subject: the set or the key of the config that it is about.
        kind: a short stable name, such as ``'missing image'``.
        detail: what was found, with files and values.
        remedy: what to do about it.
        count: how many of the kind there are.
    """

    severity: str
    subject: str
    kind: str
    detail: str
    remedy: str
    count: int = 1


def errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings with those that stop a training first, else in their order."""
    order = (ERROR, WARNING)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))
