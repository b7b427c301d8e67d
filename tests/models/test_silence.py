"""When a teacher that labels nothing is worth a warning."""

from __future__ import annotations

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from mmdet_softpl.models.silence import SILENT_ITERS, Silence
from mmdet_softpl.models.teacher_labels import TeacherView

THRESHOLDS = torch.tensor([0.8, 0.7])


@pytest.fixture()
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    return messages


def view(*scores: list[float], kept: bool = False) -> TeacherView:
    detections = [
        InstanceData(scores=torch.tensor(own), kept=torch.full((len(own),), kept)) for own in scores
    ]
    return TeacherView((), detections)


@pytest.mark.parametrize(
    ('seen', 'best'), [([[], [0.3, 0.6]], '0.600'), ([[], []], '0.000')], ids=['one', 'none']
)
def test_images_without_a_detection(seen: list[list[float]], best: str, heard: list[str]) -> None:
    silence = Silence()
    for _ in range(SILENT_ITERS):
        assert not heard
        silence.observe(view(*seen), THRESHOLDS)
    assert len(heard) == 1 and 'threshold is 0.700' in heard[0] and best in heard[0]


def test_a_label_ends_the_silence(heard: list[str]) -> None:
    silence = Silence()
    for _ in range(2):
        for _ in range(SILENT_ITERS - 1):
            silence.observe(view([0.1]), THRESHOLDS)
        assert silence.iters == SILENT_ITERS - 1 and not heard
        silence.observe(view([0.1], [0.9], kept=True), THRESHOLDS)
        assert silence.iters == 0 and not heard
