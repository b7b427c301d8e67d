"""All that can be said about the data of a config before it is trained on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .config_findings import config_findings
from .config_sets import configured_sets
from .findings import ERROR, Finding, errors_first
from .image_scan import ScannedImage, scan_images
from .set_comparisons import class_findings, image_findings, leak_findings
from .set_contents import SetContents, read_set


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        sets: what the config's sets hold.
        scanned: what reading the images gave, by path; None where they were not read.
        findings: errors first, then in the order of the config.
    """

    sets: tuple[SetContents, ...]
    scanned: Mapping[str, ScannedImage] | None
    findings: tuple[Finding, ...]

    @property
    def trains(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity != ERROR for finding in self.findings)


def inspect_data(
    cfg: Mapping[str, Any],
    *,
    read_images: bool = True,
    track: Callable[[int], Callable[[], None]] | None = None,
) -> Inspection:
    """Look at the labelled, unlabelled, validation and test set of a config.

    Args:
        cfg: a config, such as mmengine's ``Config``.
        read_images: False to open no image: broken and equal ones are then not found.
        track: called with the number of images to read; returns what is called after each.

    Returns:
        The sets and all findings. Nothing that is wrong with the data is raised.
    """
    sets = tuple(read_set(one) for one in configured_sets(cfg))
    scanned = _scan(sets, track) if read_images else None
    findings = [finding for one in sets for finding in one.findings]
    for one in sets:
        findings += image_findings(one, scanned)
    findings += [*class_findings(sets), *leak_findings(sets, scanned)]
    findings += config_findings(cfg, sets, scanned)
    return Inspection(sets, scanned, errors_first(findings))


def _scan(
    sets: Iterable[SetContents], track: Callable[[int], Callable[[], None]] | None
) -> dict[str, ScannedImage]:
    """Every file once, whatever the names that sets have for it."""
    real = {
        image.path: os.path.realpath(image.path)
        for one in sets
        for image in one.images
        if os.path.isfile(image.path)
    }
    files = dict.fromkeys(real.values())
    scanned = scan_images(files, track(len(files)) if track is not None else None)
    return {path: scanned[file] for path, file in real.items()}
