"""A random network that finds given objects: detectors with a known number of kept instances.

The networks run in full. In place of what a random network would find, the last proposals of an
image become jittered copies of planted objects, and the scores of one pass over these proposals
become planted ones: an object is named with a probability of 0.95, everything else is background
with a long tail of small class scores. So CalibratedSoftTeacher and mmdet's SoftTeacher keep the
same instances.

Shape letters: **K** objects of an image, **C** foreground classes (background has index C), **N**
RoIs of a batch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from torch import Tensor, nn

MAX_COPIES = 5
# Standard deviation of the other logits, and the background's: on average one class in ten of a
# background RoI is above LVIS's test threshold of 1e-4 then.
TAIL = 1.5
GROUND_TRUTH = 10


@dataclass(frozen=True)
class Case:
    """One setting of an iteration.

    Attributes:
        detector: ``'mask-rcnn'`` or ``'faster-rcnn'``, of mmdet.
        num_classes: C.
        kept: Instances that the teacher keeps of an image.
        size: (height, width) of the images, multiples of 32.
        batch: Labelled images, and unlabelled ones.
        depth: Of the ResNet.
        share: Of the host's RoIs: 1,000 proposals and 512 sampled RoIs an image. A small image gets
            the share of its area, so that heads and backbone keep their proportion.
        device: ``'cpu'`` or ``'cuda'``.
    """

    detector: str = 'mask-rcnn'
    num_classes: int = 1203
    kept: int = 30
    size: tuple[int, int] = (416, 672)
    batch: int = 1
    depth: int = 50
    share: float = 0.25
    device: str = 'cpu'


def detector_config(case: Case, smoothed: bool) -> Any:
    """mmdet's config of the detector, with our box head if ``smoothed``."""
    name = f'mmdet::_base_/models/{case.detector}_r50_fpn.py'
    detector = Config.fromstring(f"_base_ = ['{name}']\n", file_format='.py').model
    detector.backbone.update(depth=case.depth, init_cfg=None)
    if case.depth < 50:
        detector.neck.in_channels = [64, 128, 256, 512]
    heads = detector.roi_head
    heads.bbox_head.num_classes = case.num_classes
    if smoothed:
        heads.bbox_head.type = 'mmdet_softpl.SmoothedCEHead'
    for part in (detector.train_cfg.rpn_proposal, detector.test_cfg.rpn):
        part.update(nms_pre=round(2000 * case.share), max_per_img=round(1000 * case.share))
    detector.train_cfg.rcnn.sampler.num = round(512 * case.share)
    if 'mask_head' in heads:
        heads.mask_head.num_classes = case.num_classes
    return detector


def calibrated_soft_teacher(case: Case, **semi_train_cfg: Any) -> nn.Module:
    """Our detector over the planted network, as the shipped configs have it."""
    return _build(case, detector_config(case, True), 'CalibratedSoftTeacher', semi_train_cfg)


def soft_teacher(case: Case, test_score_thr: float) -> nn.Module:
    """mmdet's SoftTeacher over it, as its config for COCO has it; boxes only.

    ``reg_pseudo_thr`` lets every box into the box loss: how far a random network's boxes jitter
    says nothing. ``test_score_thr`` and 300 detections instead of 100 are what mmdet's LVIS configs
    set.
    """
    detector = detector_config(case, False)
    lvis = test_score_thr < 0.05
    detector.test_cfg.rcnn.update(score_thr=test_score_thr, max_per_img=300 if lvis else 100)
    cfg = dict(
        freeze_teacher=True,
        sup_weight=1.0,
        unsup_weight=4.0,
        pseudo_label_initial_score_thr=0.5,
        rpn_pseudo_thr=0.9,
        cls_pseudo_thr=0.9,
        reg_pseudo_thr=1e9,
        jitter_times=10,
        jitter_scale=0.06,
        min_pseudo_bbox_wh=(1e-2, 1e-2),
    )
    return _build(case, detector, 'mmdet.SoftTeacher', cfg)


def host_networks(case: Case) -> nn.Module:
    """Student and teacher of mmdet's own detector, with masks, over the planted network."""
    return _build(case, detector_config(case, False), 'mmdet.SemiBaseDetector', {})


def _build(case: Case, detector: Any, kind: str, semi_train_cfg: dict) -> nn.Module:
    torch.manual_seed(0)
    wrapper = dict(
        type='mmdet.MultiBranchDataPreprocessor', data_preprocessor=detector.data_preprocessor
    )
    model = MODELS.build(
        dict(
            type=kind,
            detector=detector,
            data_preprocessor=wrapper,
            semi_train_cfg=ConfigDict(semi_train_cfg),
            semi_test_cfg=ConfigDict(predict_on='teacher'),
        )
    )
    # mmengine logs every tensor that it fills.
    MMLogger.get_current_instance().setLevel('WARNING')
    model.init_weights()
    # As a mean-teacher hook begins.
    model.teacher.load_state_dict(model.student.state_dict())
    model = model.to(case.device).train()
    model.teacher.eval()
    _Planting(model.teacher, case.num_classes, scores=True)
    _Planting(model.student, case.num_classes, scores=False)
    return model


class _Planting:
    """Hooks of one detector: proposals of the RPN, then scores of the box head."""

    def __init__(self, detector: nn.Module, num_classes: int, scores: bool) -> None:
        self.num_classes = num_classes
        self.scores = scores
        self.pending: Tensor | None = None
        self.known: dict[tuple, Tensor] = {}
        self.predict_by_feat = detector.rpn_head.predict_by_feat
        detector.rpn_head.predict_by_feat = self.propose
        detector.roi_head.bbox_head.register_forward_hook(self.score)

    def propose(self, *args: Any, batch_img_metas: list[dict], **kwargs: Any) -> list[InstanceData]:
        """The RPN's proposals, the last ones replaced by jittered objects."""
        results = self.predict_by_feat(*args, batch_img_metas=batch_img_metas, **kwargs)
        for result, meta in zip(results, batch_img_metas, strict=True):
            planted = meta['planted']['proposals']
            result.bboxes = torch.cat([result.bboxes[: -len(planted) or None], planted])
        if self.scores:
            counts = [len(result) for result in results]
            key = (*counts, *(meta['planted']['key'] for meta in batch_img_metas))
            if key not in self.known:
                self.known[key] = self._logits(counts, batch_img_metas)
            self.pending = self.known[key]
        return results

    def _logits(self, counts: list[int], metas: list[dict]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        parts = []
        for count, meta in zip(counts, metas, strict=True):
            logits = TAIL * torch.randn(count, self.num_classes + 1, generator=generator)
            # Foreground mass of about 0.05 in background RoIs, whatever the number of classes.
            logits[:, -1] = np.log(self.num_classes) + TAIL**2 / 2 + 3
            planted = meta['planted']
            labels = planted['labels'].cpu()
            labels = labels.repeat(len(planted['proposals']) // max(len(labels), 1))
            rows = torch.arange(count - len(labels), count)
            logits[rows, labels] = logits[:1, -1] + 3 + torch.rand(len(labels), generator=generator)
            logits[rows, -1] -= 3
            parts.append(logits)
        return torch.cat(parts).to(metas[0]['planted']['proposals'].device)

    def score(self, module: nn.Module, args: tuple, output: tuple) -> tuple | None:
        """Planted scores and boxes that stay where they are, once after each ``propose``."""
        pending, self.pending = self.pending, None
        if pending is None or len(pending) != len(output[0]):
            return None
        # The sum keeps the network's own output in use.
        return pending + 0 * output[0], 0 * output[1]


def batch_of(case: Case, seed: int = 0) -> tuple[dict, dict]:
    """Inputs and data samples of the three branches; the student sees a flipped image.

    Labelled images have ``GROUND_TRUTH`` objects with masks, unlabelled ones ``case.kept``.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = case.size
    flip = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    shape = (case.batch, 3, height, width)
    weak = torch.randn(shape, generator=generator).to(case.device)
    inputs = dict(
        sup=torch.randn(shape, generator=generator).to(case.device),
        unsup_teacher=weak,
        unsup_student=weak.flip(3),
    )
    samples: dict[str, list] = {name: [] for name in inputs}
    for i in range(case.batch):
        objects = _objects(case, GROUND_TRUTH, generator)
        samples['sup'].append(_sample(case, i, objects, np.eye(3, dtype=np.float32), True))
        objects = _objects(case, case.kept, generator)
        identity = np.eye(3, dtype=np.float32)
        samples['unsup_teacher'].append(_sample(case, 1000 + i, objects, identity, False))
        boxes, proposals, labels = objects
        flipped = tuple(
            torch.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], dim=1)
            for b in (boxes, proposals)
        )
        samples['unsup_student'].append(_sample(case, 2000 + i, (*flipped, labels), flip, False))
    return inputs, samples


def _objects(case: Case, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (K, 4) that hardly overlap, their jittered copies (a few times K, 4), labels (K,)."""
    height, width = case.size
    columns = max(1, round((count * width / height) ** 0.5))
    rows = -(-count // columns)
    cell = torch.tensor([width / columns, height / max(rows, 1)])
    index = torch.arange(count)
    corner = torch.stack([index % columns, index // columns], dim=1) * cell
    low = corner + cell * (0.05 + 0.1 * torch.rand(count, 2, generator=generator))
    boxes = torch.cat([low, low + cell * 0.75], dim=1)
    copies = min(MAX_COPIES, max(1, round(500 * case.share) // max(count, 1)))
    jitter = 0.04 * cell.repeat(2) * torch.randn(copies, count, 4, generator=generator)
    limit = torch.tensor([width, height, width, height])
    jittered = torch.minimum((boxes + jitter).view(-1, 4).clamp(min=0), limit)
    labels = torch.randint(0, case.num_classes, (count,), generator=generator)
    return boxes.to(case.device), jittered.to(case.device), labels.to(case.device)


def planted_truth(case: Case, samples: list[DetDataSample]) -> list[DetDataSample]:
    """Data samples of student views with what is planted in them as their ground truth."""
    result = []
    for sample in samples:
        planted = sample.metainfo['planted']
        count = len(planted['labels'])
        # The first copy of each object.
        objects = (planted['proposals'][:count], planted['proposals'], planted['labels'])
        key, homography = planted['key'], sample.metainfo['homography_matrix']
        result.append(_sample(case, key, objects, homography, True))
    return result


def _sample(
    case: Case,
    key: int,
    objects: tuple[Tensor, Tensor, Tensor],
    homography: np.ndarray,
    labelled: bool,
) -> DetDataSample:
    boxes, proposals, labels = objects
    sample = DetDataSample(
        metainfo=dict(
            img_id=key,
            img_path=f'{key}.jpg',
            ori_shape=case.size,
            img_shape=case.size,
            pad_shape=case.size,
            batch_input_shape=case.size,
            scale_factor=(1.0, 1.0),
            homography_matrix=homography,
            planted=dict(key=key, proposals=proposals, labels=labels),
        )
    )
    chosen = slice(None) if labelled else slice(0, 0)
    truth = InstanceData(bboxes=boxes[chosen], labels=labels[chosen])
    if labelled:
        height, width = case.size
        masks = np.zeros((len(boxes), height, width), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        truth.masks = BitmapMasks(masks, height, width)
    sample.gt_instances = truth
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=labels[:0])
    return sample


def copied(samples: dict[str, list]) -> dict[str, list]:
    """Data samples of their own for one iteration: mmdet's SoftTeacher writes into them."""
    return {name: [copy.copy(sample) for sample in part] for name, part in samples.items()}
