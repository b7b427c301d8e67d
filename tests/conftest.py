"""Shared by all tests: the stack, threads, isolation of mmengine's globals, sample data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

import mmdet_softpl  # noqa: F401  (stands in for mmcv's ops before any test imports mmdet)

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores between the xdist workers: each one's torch would take them all."""
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture(autouse=True)
def _forget_mmengine_instances() -> Iterator[None]:
    """Drop loggers, hubs, visualizers and default scopes that a test created.

    A default scope that lingers changes which registry the next test's ``type='X'`` finds.
    """
    managers = (DefaultScope, MessageHub, MMLogger, Visualizer)
    before = [dict(manager._instance_dict) for manager in managers]
    yield
    for manager, instances in zip(managers, before, strict=True):
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


@pytest.fixture(autouse=True)
def _plain_config_texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out yapf, which takes longer to lay out a config's text than a tiny training.

    But for what writes configs: the tests of ``export`` and of ``new-config``.
    """
    if request.node.path.stem in ('test_export', 'test_config_text', 'test_new_config'):
        return
    monkeypatch.setattr(
        'mmengine.config.config.FormatCode', lambda text, **kwargs: (text, True), raising=False
    )


@pytest.fixture(scope='session')
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope='session')
def coco_tiny() -> Path:
    """Folder of the real sample data (80 COCO images); skips where it is absent."""
    default = REPOSITORY.parent / 'shared' / 'data' / 'coco_tiny'
    path = Path(os.environ.get('SOFTPL_COCO_TINY', default))
    if not path.is_dir():
        pytest.skip(f'no sample data at {path} (set SOFTPL_COCO_TINY)')
    return path
