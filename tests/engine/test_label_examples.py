"""Which pseudo-labels the report shows, on hand-made detections."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_softpl.engine import label_examples
from mmdet_softpl.engine.label_examples import (
    KINDS,
    MAX_OF_CLASS,
    SeenObjects,
    choose_objects,
    disagreement,
)

THRESHOLDS = torch.tensor([0.5, 0.5, 0.5])
GROUPS = torch.tensor([0, 1, 2])


def seen(*objects: tuple[int, float, bool], doubt: tuple[float, ...] = ()) -> SeenObjects:
    labels, scores, kept = zip(*objects, strict=True) if objects else ((), (), ())
    found = InstanceData(
        bboxes=torch.zeros(len(objects), 4),
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores),
        confidences=torch.tensor(scores),
        kept=torch.tensor(kept, dtype=torch.bool),
    )
    return SeenObjects(0, found, torch.tensor(doubt or (0.0,) * len(objects)))


def test_each_gallery_takes_what_its_name_says() -> None:
    images = [
        seen((2, 0.99, True), (0, 0.3, False)),
        seen((1, 0.51, True), (2, 0.9, True), doubt=(0.4, 0.1)),
        seen(),
        seen((0, 0.6, True), (1, 0.2, False)),
    ]
    chosen = choose_objects(images, THRESHOLDS, GROUPS, count=6)
    assert tuple(chosen) == KINDS
    assert chosen['confident'] == [(0, 0), (1, 1), (3, 0)]
    assert chosen['doubtful'][0] == (1, 0)
    assert chosen['rare'] == [(3, 0), (0, 1)], 'kept ones first'
    assert chosen['disagreeing'] == [(1, 0)]
    assert all(len({image for image, _ in places}) == len(places) for places in chosen.values())


def test_no_gallery_is_of_one_class() -> None:
    images = [seen((2, 0.9 - 0.01 * i, True)) for i in range(5)] + [seen((1, 0.6, True))]
    confident = choose_objects(images, THRESHOLDS, GROUPS, count=4)['confident']
    assert confident == [(0, 0), (1, 0), (5, 0)] and MAX_OF_CLASS == 2
    assert len(choose_objects(images, THRESHOLDS, GROUPS, count=1)['confident']) == 1


@pytest.mark.parametrize('images', [[], [seen()]])
def test_nothing_seen(images: list[SeenObjects]) -> None:
    assert choose_objects(images, THRESHOLDS, GROUPS, 6) == {kind: [] for kind in KINDS}


def test_an_object_that_is_gone_with_another_padding_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Near the score floor, alone in its batch, an image may have no object at all."""
    images = [seen((0, 0.9, True)), replace(seen((1, 0.8, True)), index=1)]
    monkeypatch.setattr(label_examples, 'see_objects', lambda *args: images)

    def alone(detector, dataset, index: int, network: str) -> SimpleNamespace:
        found = images[index].teacher
        return SimpleNamespace(detections=found[:index], image=None)

    monkeypatch.setattr(label_examples, '_with_masks', alone)
    detector = SimpleNamespace(class_state=SimpleNamespace(thresholds=THRESHOLDS, groups=GROUPS))
    dataset = SimpleNamespace(get_data_info=lambda i: dict(img_path=f'{i}.png'))
    found = label_examples.find_examples(detector, dataset, [0, 1], 6)
    assert found and {example.name for example in found} == {'1.png'}


def test_disagreement_by_hand() -> None:
    def objects(*rows: tuple[float, int, float]) -> InstanceData:
        return InstanceData(
            bboxes=torch.tensor([[x, 0.0, x + 10, 10.0] for x, _, _ in rows]).view(-1, 4),
            labels=torch.tensor([label for _, label, _ in rows], dtype=torch.long),
            confidences=torch.tensor([confidence for _, _, confidence in rows]),
        )

    teacher = objects((0, 1, 0.8), (100, 1, 0.8), (200, 1, 0.8), (300, 1, 0.5))
    # Confirmed half-heartedly, by another class, by a box elsewhere, not at all.
    student = objects((1, 1, 0.5), (100, 2, 0.9), (207, 1, 0.9))
    torch.testing.assert_close(disagreement(teacher, student), torch.tensor([0.4, 0.8, 0.8, 0.5]))
    assert len(disagreement(objects(), student)) == 0
    torch.testing.assert_close(disagreement(teacher, objects()), teacher.confidences)
