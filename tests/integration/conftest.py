"""Shared by the tests that run whole trainings."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _plain_config_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out yapf, which takes longer to lay out a config's text than a tiny training."""
    monkeypatch.setattr(
        'mmengine.config.config.FormatCode', lambda text, **kwargs: (text, True), raising=False
    )
