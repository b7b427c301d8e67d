"""Does an exported detector say what the network said that it came from?

Shape letters: **K** detections of an image.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from mmcv.transforms import Compose
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_softpl.models.checkpoint_parts import is_class_statistic

# Below it a detection is one of hundreds that nobody looks at.
SCORE_THR = 0.05
SAME_IOU = 0.9
# Half precision moves a detection over a threshold of score or NMS now and then.
LEAST_SHARE = {False: 1.0, True: 0.98}
LARGEST_DIFFERENCE = {False: 1e-3, True: 0.05}


@dataclass(frozen=True)
class ExportCheck:
    """Detections of the network and of the export, paired by class, box and mask (IoU above 0.9).

    Attributes:
        images: looked at.
        detections: of both together, with a score of at least 0.05.
        paired: of them, those that have a partner.
        score_difference: largest of a pair, in [0, 1].
        agrees: there are some, all are paired, and scores differ by 0.001 at most; with half
            precision 98 %, and 0.05.
    """

    images: int
    detections: int
    paired: int
    score_difference: float
    agrees: bool


def check_export(
    cfg: Config,
    state_dict: Mapping[str, Tensor],
    network: str,
    exported: tuple[str, str],
    images: Sequence[str],
    half: bool = False,
) -> ExportCheck:
    """Compare an export with the network of a checkpoint, on the CPU.

    Args:
        cfg: of the training.
        state_dict: of the checkpoint.
        network: ``'teacher'`` or ``'student'``; of no effect on a plain detector.
        exported: paths of its config and weights.
        images: paths.
        half: whether the weights were rounded to half precision.

    Returns:
        What was found.
    """
    original = _trained(cfg, state_dict, network)
    # mmengine says on stdout what it loads, where a command may print json.
    with redirect_stdout(sys.stderr):
        shipped = init_detector(*exported, device='cpu')
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = Compose(copy.deepcopy(shipped.cfg.test_pipeline))
        original.cfg = shipped.cfg
        detections = paired = 0
        largest = 0.0
        for image in images:
            ours, theirs = (
                _sure(inference_detector(model, image, pipeline).pred_instances)
                for model in (original, shipped)
            )
            pairs, difference = pair_detections(ours, theirs)
            detections += len(ours) + len(theirs)
            paired += 2 * pairs
            largest = max(largest, difference)
    agrees = (
        detections > 0
        and paired >= LEAST_SHARE[half] * detections
        and largest <= LARGEST_DIFFERENCE[half]
    )
    return ExportCheck(len(images), detections, paired, largest, agrees)


def pair_detections(ours: InstanceData, theirs: InstanceData) -> tuple[int, float]:
    """Pair the detections of an image, the surest first; each takes the nearest of its class.

    Args:
        ours, theirs: ``bboxes`` (K, 4), ``labels`` (K,) and ``scores`` (K,) each, and ``masks``
            (K, H, W) bool where there are any.

    Returns:
        Number of pairs, and the largest difference of their scores (0 without a pair).
    """
    if not len(ours) or not len(theirs):
        return 0, 0.0
    iou = bbox_overlaps(ours.bboxes, theirs.bboxes)
    if 'masks' in ours:
        iou = torch.minimum(iou, _mask_iou(ours.masks, theirs.masks))
    iou[ours.labels[:, None] != theirs.labels] = 0
    pairs, largest = 0, 0.0
    for index in ours.scores.argsort(descending=True).tolist():
        partner = int(iou[index].argmax())
        if iou[index, partner] > SAME_IOU:
            pairs += 1
            largest = max(largest, float((ours.scores[index] - theirs.scores[partner]).abs()))
            iou[:, partner] = 0
    return pairs, largest


def _mask_iou(ours: Tensor, theirs: Tensor) -> Tensor:
    """IoU of all pairs of (K, H, W) bool masks; 1 where both are empty."""
    a, b = ours.flatten(1).float(), theirs.flatten(1).float()
    common = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1) - common
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)


def _sure(found: InstanceData) -> InstanceData:
    return found[found.scores >= SCORE_THR]


def _trained(cfg: Config, state_dict: Mapping[str, Tensor], network: str) -> nn.Module:
    """The network in evaluation mode, inside its semi-supervised model if it has one."""
    model: dict[str, Any] = copy.deepcopy(cfg.model)
    # Its weights are in the state dict.
    model.pop('teacher_checkpoint', None)
    if 'detector' in model:
        model['semi_test_cfg'] = dict(predict_on=network)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = MODELS.build(model)
    built.load_state_dict(dict(state_dict), strict=False)
    return built.eval()


def halved(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating weights in half precision; the host's loader widens them again.

    Args:
        state_dict: of a detector; statistics of classes stay as they are, since Seesaw loss counts
            RoIs beyond what half precision holds.

    Raises:
        ValueError: a weight is beyond 65,504, the largest number of half precision.
    """
    result = {
        k: v.half() if v.is_floating_point() and not is_class_statistic(k) else v
        for k, v in state_dict.items()
    }
    lost = [
        k
        for k, v in result.items()
        if torch.isfinite(v).all() < torch.isfinite(state_dict[k]).all()
    ]
    if lost:
        raise ValueError(f'{lost[0]} has values beyond 65,504; export it without --fp16')
    return result
