"""What is installed, by the names of its distributions."""

from __future__ import annotations

import pytest

from mmdet_softpl.installed_stack import stack, untested
from tests.support.versions import OFFICIAL, fake_versions


def test_stack_of_the_official_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, OFFICIAL)
    found = stack()
    assert found['mmcv'] == dict(version='2.1.0', distribution='mmcv-lite', origin='openmmlab')
    assert found['torch'] == dict(version='2.13.0+cpu', distribution='torch', origin=None)
    assert found['lvis'] == dict(version=None, distribution=None, origin=None)
    assert untested(found) == []


def test_stack_of_onedl_and_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, {'onedl-mmengine': '0.11', 'onedl-mmcv': '2.3', 'mmcv': '2.1.0'})
    found = stack()
    assert found['mmengine']['origin'] == 'onedl'
    assert found['mmcv']['distribution'] == 'mmcv + onedl-mmcv'
    assert found['mmdet']['version'] is None
    assert any('onedl-mmengine 0.11' in sentence for sentence in untested(found))
