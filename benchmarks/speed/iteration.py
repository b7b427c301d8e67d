"""Whole iterations: against the bare network, against mmdet's SoftTeacher, and their growth."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.speed.bare import BareNetwork
from benchmarks.speed.planted import (
    Case,
    batch_of,
    calibrated_soft_teacher,
    copied,
    host_networks,
    planted_truth,
    soft_teacher,
)
from benchmarks.speed.records import Record, of_rounds
from benchmarks.speed.timing import interleave
from mmdet_softpl.models.semi_train_cfg import DEFAULTS

CLASSES = (80, 1203, 13204)
KEPT = (0, 30, 100)
# Later than any iteration: what happens every now and then is timed apart and shared out.
NEVER = 10**9
LVIS_TEST_THR = 1e-4
MASKS_NOTE = (
    'the bare network predicts masks of all classes, as mmdet does; on unlabelled images ours '
    'predicts one class a RoI, which is what makes it cheaper'
)

HOST_NOTE = (
    ". A GPU waits for the host where a batch is small, and mmdet's proposals, assignment, "
    'sampling and targets are most of what is launched beside the network (see operations, counted '
    "for Faster R-CNN); against mmdet's own supervised iterations see the row of that name"
)


def step(model: nn.Module, inputs: dict[str, Tensor], samples: dict[str, list]) -> Callable:
    """One iteration of a semi-supervised detector, up to the gradients."""

    def run() -> None:
        model.zero_grad()
        loss, _ = model.parse_losses(model.loss(inputs, copied(samples)))
        loss.backward()

    return run


def against_bare(case: Case, rounds: int) -> tuple[list[float], float]:
    """Ratios to the bare network, and by the clock.

    What runs in some iterations only is added to each, by its part.

    Raises:
        RuntimeError: The teacher does not keep what was planted.
    """
    model, inputs, samples = _ours(case)
    ours = step(model, inputs, samples)
    model.class_state.clear('kept')
    ours()
    kept = float(model.class_state.kept.sum()) / case.batch
    # In a large batch the long tail of small scores gets one in now and then.
    if abs(kept - case.kept) > (0.5 if case.kept else 0):
        raise RuntimeError(f'{case}: the teacher kept {kept:g} instances an image')
    network = BareNetwork(model, inputs, copied(samples))

    def bare() -> None:
        model.zero_grad()
        network()

    times = interleave({'ours': ours, 'bare': bare}, rounds, case.device)
    extra = _seldom(model, inputs, samples, rounds, case.device)
    return times.ratios('ours', 'bare', extra), times.wall_ratio('ours', 'bare')


def _ours(case: Case) -> tuple[nn.Module, dict[str, Tensor], dict[str, list]]:
    """The detector without what happens every now and then, and its batch."""
    model = calibrated_soft_teacher(case, calibration_interval=NEVER, refresh_interval=NEVER)
    # At 0 the pass over labelled images would be due.
    model._iter = 1
    return model, *batch_of(case)


def _seldom(
    model: nn.Module, inputs: dict[str, Tensor], samples: dict[str, list], rounds: int, device: str
) -> float:
    """Milliseconds an iteration of what runs in some iterations only, by the defaults.

    The teacher's pass over labelled images, and the refreshes of calibration and similarity.
    """
    head = model.student.roi_head.bbox_head

    def observe() -> None:
        model.observe_labelled(inputs['sup'], samples['sup'])

    runs: dict[str, tuple[Callable, int]] = {
        'observe': (observe, DEFAULTS['calibration_interval']),
        'calibration': (model.refresh_calibration, DEFAULTS['refresh_interval']),
        'similarity': (head.refresh, head.refresh_interval),
    }
    times = interleave({k: run for k, (run, _) in runs.items()}, max(1, rounds // 2), device)
    return sum(times.median(name) / every for name, (_, every) in runs.items())


def own_step(case: Case) -> Callable:
    """One iteration of CalibratedSoftTeacher."""
    return step(*_ours(case))


def bare_rows(case: Case, name: str, rounds: int) -> list[Record]:
    """Mask R-CNN at 1,203 classes, by the number of kept instances."""
    records = []
    for kept in KEPT:
        chosen = dataclasses.replace(case, kept=kept)
        ratios, clock = against_bare(chosen, rounds)
        records.append(
            of_rounds(
                ratios,
                what=f'iteration of CalibratedSoftTeacher, {kept} kept instances an image',
                against='bare network',
                case=describe(chosen),
                device=name,
                target=1.10 if case.device == 'cpu' else 1.15,
                wall_ratio=clock,
                note=MASKS_NOTE if case.device == 'cpu' else MASKS_NOTE + HOST_NOTE,
            )
        )
    return records


def against_host(case: Case, rounds: int) -> tuple[list[float], float]:
    """Ratios to what the same networks cost in mmdet's own code, and by the clock.

    That is an iteration of its supervised detector on the labelled images, another one on as many
    images with ``case.kept`` objects, and the teacher's boxes on these.
    """
    model, inputs, samples = _ours(case)
    ours = step(model, inputs, samples)
    networks = host_networks(case)
    truth = planted_truth(case, samples['unsup_student'])

    def host() -> None:
        student, teacher = networks.student, networks.teacher
        networks.zero_grad()
        with torch.no_grad():
            seen = copied(samples)
            x = teacher.extract_feat(inputs['unsup_teacher'])
            proposals = teacher.rpn_head.predict(x, seen['unsup_teacher'], rescale=False)
            metas = [sample.metainfo for sample in seen['unsup_teacher']]
            teacher.roi_head.predict_bbox(
                x, metas, proposals, teacher.roi_head.test_cfg, rescale=False
            )
        losses = [
            networks.parse_losses(student.loss(inputs[branch], targets))[0]
            for branch, targets in (('sup', seen['sup']), ('unsup_student', truth))
        ]
        torch.stack(losses).sum().backward()

    times = interleave({'ours': ours, 'host': host}, rounds, case.device)
    extra = _seldom(model, inputs, samples, rounds, case.device)
    return times.ratios('ours', 'host', extra), times.wall_ratio('ours', 'host')


def host_rows(case: Case, name: str, rounds: int) -> list[Record]:
    """Mask R-CNN at 1,203 classes."""
    ratios, clock = against_host(case, rounds)
    return [
        of_rounds(
            ratios,
            what='iteration of CalibratedSoftTeacher',
            against="mmdet's supervised iterations on as many images, and the teacher's boxes",
            case=describe(case),
            device=name,
            target=1.10 if case.device == 'cpu' else 1.15,
            wall_ratio=clock,
        )
    ]


def growth_rows(case: Case, name: str, rounds: int) -> list[Record]:
    """What an iteration grows with the number of classes, beyond the bare network."""
    ratios = {c: against_bare(dataclasses.replace(case, num_classes=c), rounds)[0] for c in CLASSES}
    records = []
    for c in CLASSES[1:]:
        records.append(
            of_rounds(
                [a / b for a, b in zip(ratios[c], ratios[CLASSES[0]], strict=True)],
                what=f'growth of the iteration from {CLASSES[0]} to {c:,} classes',
                against='growth of the bare network',
                case=describe(dataclasses.replace(case, num_classes=c)),
                device=name,
                target=1.10,
            )
        )
    return records


def soft_teacher_rows(case: Case, name: str, rounds: int) -> list[Record]:
    """Faster R-CNN, boxes only, against mmdet's SoftTeacher with the same kept instances."""
    records = []
    for num_classes, test_thr, target in ((80, 0.05, 0.85), (1203, LVIS_TEST_THR, 0.60)):
        chosen = dataclasses.replace(case, detector='faster-rcnn', num_classes=num_classes)
        model, inputs, samples = _ours(chosen)
        host = soft_teacher(chosen, test_thr)
        network = BareNetwork(model, inputs, copied(samples))

        def bare(model: nn.Module = model, network: BareNetwork = network) -> None:
            model.zero_grad()
            network()

        ours, theirs = step(model, inputs, samples), step(host, inputs, samples)
        times = interleave({'ours': ours, 'host': theirs, 'bare': bare}, rounds, case.device)
        extra = _seldom(model, inputs, samples, rounds, case.device)
        bound = statistics.median(times.ratios('bare', 'host'))
        note = (
            f'the host with its test threshold of {test_thr:g}; the bare network of ours, which no '
            f'code around it can undercut, comes to {bound:.2f} of the host'
        )
        records.append(
            of_rounds(
                times.ratios('ours', 'host', extra),
                what=f'iteration, boxes only, {num_classes:,} classes',
                against="mmdet's SoftTeacher",
                case=describe(chosen),
                device=name,
                target=target,
                wall_ratio=times.wall_ratio('ours', 'host'),
                note=note,
            )
        )
        del model, host, network, bare, ours, theirs
    return records


def describe(case: Case) -> str:
    """Sizes of a case in words."""
    height, width = case.size
    rois = math.floor(512 * case.share + 0.5)
    return (
        f'{case.detector} R{case.depth}, C = {case.num_classes:,}, {width} x {height}, '
        f'{case.batch} + {case.batch} images, {case.kept} kept, {rois} RoIs'
    )
