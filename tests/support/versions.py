"""Installed distributions that are not there."""

from __future__ import annotations

import importlib.metadata

import pytest

OFFICIAL = {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0', 'torch': '2.13.0+cpu'}


def fake_versions(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    """Only these distributions are installed, in these versions."""

    def version(distribution: str) -> str:
        if distribution not in versions:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return versions[distribution]

    monkeypatch.setattr(importlib.metadata, 'version', version)
