"""What a run hears."""

from __future__ import annotations

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Warnings of a new run."""
    heard: list[str] = []
    logger = MMLogger.get_instance(f'run {id(heard)}')
    monkeypatch.setattr(logger, 'warning', heard.append)
    return heard
