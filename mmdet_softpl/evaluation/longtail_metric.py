"""LVIS and COCO average precision by frequency group, with calibration errors.

Shape letters: **N** detections of an image, **D** detections of the set, **C** foreground classes,
**B** confidence bins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as mask_utils
import torch
from faster_coco_eval import COCO
from mmdet.registry import METRICS as MMDET_METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor

from mmdet_softpl.checks import check_choice, check_range
from mmdet_softpl.datasets.annotation_checks import check_annotations
from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.evaluation.average_precision import (
    Detections,
    best_of_each,
    class_averages,
    precision_table,
    summarise,
)
from mmdet_softpl.evaluation.ground_truth import (
    GroundTruth,
    category_ids,
    check_masks,
    coco_api,
    frequency_letters,
    groups_of_classes,
    judge_detections,
)
from mmdet_softpl.functional.frequency import FREQUENCY_LETTERS
from mmdet_softpl.functional.group_statistics import group_mean
from mmdet_softpl.functional.reliability import (
    class_conditional_ece,
    expected_calibration_error,
    reliability_counts,
)
from mmdet_softpl.registry import METRICS

# Per class over the whole set: Dave et al., "Evaluating Large-Vocabulary Object Detectors"
# (arXiv 2102.01066).
FIXED_DETECTIONS_PER_CLASS = 10_000
# An image (arXiv 1908.03195), and an image and class (cocodataset.org, detection evaluation).
LVIS_MAX_DETS = 300
COCO_MAX_DETS = 100
NUM_BINS = 15
# A class with fewer judged detections says more about chance than about calibration.
MIN_DETECTIONS_PER_CLASS = 10


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation of a ``LongTailMetric`` finds; see there.

    Attributes:
        metrics: Without the prefix.
        class_AP: ``'bbox'`` or ``'segm'`` to (C,) AP in [0, 1], -1 for a class without an object.
        reliability: (3, C, B), or None without ``calibration``.
    """

    metrics: dict[str, float]
    class_AP: dict[str, np.ndarray]
    reliability: Tensor | None


@METRICS.register_module()
@MMDET_METRICS.register_module()
class LongTailMetric(BaseMetric):
    """AP of boxes and masks per frequency group, and how far to trust the scores.

    A file whose images have ``neg_category_ids`` is evaluated by the rules of LVIS
    (arXiv 1908.03195), any other one by those of COCO. Keys, after the prefix:

    - ``bbox_AP``, ``bbox_AP50``, ``bbox_AP75`` in [0, 1], and ``bbox_APr``, ``bbox_APc``,
      ``bbox_APf`` where groups are known; likewise ``segm_...``. -1: no object to find.
    - ``bbox_AP_fixed``, ``bbox_APr_fixed``, ... (``ap_fixed``): no cap per image, instead the best
      10,000 detections of each class over the set (arXiv 2102.01066), since every boost of rare
      scores moves LVIS's cap per image. The model's own ``max_per_img`` should be large for it.
    - ``ece``, ``cc_ece`` and ``cc_ece_r``, ``cc_ece_c``, ``cc_ece_f`` (``calibration``): expected
      calibration error of the boxes at IoU 0.5, over all detections, and the mean of the error
      within each class that has at least 10 detections (DESIGN, section 4). NaN: no such class.

    Label i is the class ``dataset_meta['classes'][i]``; names are looked up in ``ann_file``, and a
    difference is an error, never an AP of 0: before a training with one of our hooks begins
    (:meth:`check_classes`), else at the first evaluation.

    Args:
        ann_file: COCO or LVIS json of the evaluated images.
        metric: ``'bbox'``, ``'segm'`` or a list of both.
        labeled_ann_file: json of the labelled training images. Its ``frequency`` letters, or else
            its image counts, give the groups if ``ann_file`` has no letters.
        max_dets: Best detections that count: of each image for an LVIS file, of each image and
            class for a COCO file, as each of the two defines it. None: the benchmark's own
            number, 300 for LVIS and 100 for COCO.
        ap_fixed: Also AP-Fixed.
        calibration: Also the calibration errors.
        calibration_score_thr: Lowest score for them, in [0, 1]. LVIS detectors fill every image
            with scores down to 1e-4, which would drown all others in the average.
        collect_device: As in mmengine.
        prefix: As in mmengine; default ``longtail``.

    Raises:
        ValueError: An unknown metric or a value outside its range; an annotation file that
            cannot be used, or with ``'segm'`` has objects without a mask (``AnnotationError``).

    Attributes:
        reliability: (3, C, B) counts, correct and confidence sums of the last evaluation (main
            process only), for :func:`mmdet_softpl.reporting.reliability.draw_reliability`.
        groups: (C,) int64, 0 rare, 1 common, 2 frequent, or None.
        evaluations: The last two evaluations, older first (the teacher's and the student's of a
            ``TeacherStudentValLoop``; main process only): ``class_AP``, ``'bbox'`` or ``'segm'``
            to (C,) AP in [0, 1], -1 for a class without an object; ``reliability`` as above.
    """

    default_prefix = 'longtail'

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = ('bbox', 'segm'),
        labeled_ann_file: str | None = None,
        max_dets: int | None = None,
        ap_fixed: bool = False,
        calibration: bool = True,
        calibration_score_thr: float = 0.05,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.iou_types = [metric] if isinstance(metric, str) else list(metric)
        for name in self.iou_types:
            check_choice('LongTailMetric', 'metric', name, ('bbox', 'segm'))
        if max_dets is not None:
            check_range('LongTailMetric', 'max_dets', max_dets, 1, None)
        check_range('LongTailMetric', 'calibration_score_thr', calibration_score_thr, 0, 1)
        dataset = load_annotation_file(ann_file)
        check_annotations(ann_file, whole_ids=True, data=dataset)
        if 'segm' in self.iou_types:
            check_masks(dataset, ann_file)
        self.ann_file = ann_file
        self._categories = dataset['categories']
        self._labeled_ann_file = labeled_ann_file
        self._labeled = None if labeled_ann_file is None else frequency_letters(labeled_ann_file)
        self.max_dets = max_dets
        self.ap_fixed = ap_fixed
        self.calibration = calibration
        self.calibration_score_thr = calibration_score_thr
        self.reliability: Tensor | None = None
        self.groups: Tensor | None = None
        self.evaluations: deque[dict] = deque(maxlen=2)
        self._truth: GroundTruth | None = None
        self._api: COCO | None = None

    def check_classes(self, classes: Sequence[str]) -> None:
        """Whether files and data set fit, before there is anything to evaluate.

        Args:
            classes: (C,) names of the validation data set.

        Raises:
            AnnotationError: ``ann_file`` lacks a class or has them in another order, or
                ``labeled_ann_file`` has to give the groups and lacks one.
        """
        category_ids(self._categories, classes, self.ann_file)
        self._groups_of(classes)

    def _groups_of(self, classes: Sequence[str]) -> Tensor | None:
        evaluated = dict(categories=self._categories)
        return groups_of_classes(evaluated, classes, self._labeled, self._labeled_ann_file)

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Keep the predictions of a batch as arrays, the masks as RLE.

        Args:
            data_batch: Not used.
            data_samples: Dicts with ``img_id`` and ``pred_instances``: ``bboxes`` (N, 4)
                xyxy in pixels of the original image, ``scores`` (N,), ``labels`` (N,), and for
                ``'segm'`` ``masks``, (N, H, W) bool as tensor or array, or N RLE dicts; optionally
                ``mask_scores`` (N,), used for mask AP.

        Raises:
            KeyError: ``'segm'`` is asked for and the predictions have no masks.
        """
        for sample in data_samples:
            predictions = sample['pred_instances']
            result = {
                'img_id': int(sample['img_id']),
                'bboxes': _array(predictions['bboxes'], np.float32).reshape(-1, 4),
                'scores': _array(predictions['scores'], np.float32),
                'labels': _array(predictions['labels'], np.int32),
            }
            if 'segm' in self.iou_types:
                if 'masks' not in predictions:
                    raise KeyError(
                        "LongTailMetric: metric has 'segm', but pred_instances has no masks. Set "
                        "metric='bbox' for a detector without a mask head."
                    )
                result['masks'] = encode_masks(predictions['masks'])
                if 'mask_scores' in predictions:
                    result['mask_scores'] = _array(predictions['mask_scores'], np.float32)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Metrics of all images; see the class.

        Raises:
            AnnotationError: Classes of the data set and of ``ann_file`` differ, or an image that
                the file does not have.
        """
        found = self.evaluate_against(*self._load(), results)
        self.reliability = found.reliability
        self.evaluations.append(dict(class_AP=found.class_AP, reliability=found.reliability))
        return found.metrics

    def evaluate_against(self, truth: GroundTruth, api: COCO, results: list[dict]) -> Evaluation:
        """What ``compute_metrics`` does, against any ground truth and leaving no trace.

        Args:
            truth, api: One annotation file in both forms.
            results: Of ``process``.

        Raises:
            AnnotationError: An image that the file does not have.
        """
        logger = MMLogger.get_current_instance()
        boxes = _concatenate(results, 'scores')
        truth.check_images(result['img_id'] for result in results)
        groups = None if self.groups is None else self.groups.numpy()

        metrics: dict[str, float] = {}
        class_ap: dict[str, np.ndarray] = {}
        for iou_type in self.iou_types:
            logger.info('LongTailMetric: evaluating %s', iou_type)
            masks_scored = iou_type == 'segm' and any('mask_scores' in r for r in results)
            found = _concatenate(results, 'mask_scores') if masks_scored else boxes
            for suffix, kept, cap in self._selections(found, truth, iou_type):
                precision = precision_table(
                    api, kept, truth.cat_ids, iou_type, federated=truth.federated, max_dets=cap
                )
                if not suffix:
                    class_ap[iou_type] = class_averages(precision)
                for key, value in summarise(precision, groups).items():
                    metrics[f'{iou_type}_{key}{suffix}'] = value
        reliability = None
        if self.calibration:
            reliability = self._reliability(boxes, truth)
            metrics.update(self._calibration(reliability))
        return Evaluation(metrics, class_ap, reliability)

    def _load(self) -> tuple[GroundTruth, COCO]:
        """Ground truth, read once and only where metrics are computed."""
        if self._truth is None or self._api is None:
            dataset = load_annotation_file(self.ann_file)
            classes = (self.dataset_meta or {}).get('classes')
            if classes is None:
                raise ValueError(
                    f'LongTailMetric: {self.ann_file}: dataset_meta has no classes. Set '
                    'metainfo=dict(classes=...) of the validation data set, or dataset_meta.'
                )
            self._truth = GroundTruth(dataset, classes, self.ann_file)
            self.groups = self._groups_of(classes)
            self._api = coco_api(dataset)
        return self._truth, self._api

    def _max_dets(self, truth: GroundTruth) -> int:
        if self.max_dets is not None:
            return self.max_dets
        return LVIS_MAX_DETS if truth.federated else COCO_MAX_DETS

    def _selections(
        self, found: Detections, truth: GroundTruth, iou_type: str
    ) -> list[tuple[str, Detections, int]]:
        """Suffix, detections and cap per image and class of each kind of AP."""
        max_dets = self._max_dets(truth)
        capped = found
        if truth.federated:
            capped = found[best_of_each(found.img_ids, found.scores, max_dets)]
        selections = [('', _judgeable(capped, truth, iou_type), max_dets)]
        if self.ap_fixed:
            best = best_of_each(found.labels, found.scores, FIXED_DETECTIONS_PER_CLASS)
            fixed = _judgeable(found[best], truth, iou_type)
            selections.append(('_fixed', fixed, FIXED_DETECTIONS_PER_CLASS))
        return selections

    def _reliability(self, found: Detections, truth: GroundTruth) -> Tensor:
        """(3, C, B) counts of the detections that count."""
        found = found[found.scores >= self.calibration_score_thr]
        # The same that counts for AP.
        keys = found.img_ids
        if not truth.federated:
            keys = np.unique(keys, return_inverse=True)[1] * len(truth.cat_ids) + found.labels
        found = found[best_of_each(keys, found.scores, self._max_dets(truth))]
        found = found[np.argsort(found.img_ids, kind='stable')]
        scores = torch.from_numpy(found.scores)
        labels = torch.from_numpy(found.labels)
        bboxes = torch.from_numpy(found.bboxes)
        judged = torch.zeros(len(found), dtype=torch.bool)
        correct = torch.zeros(len(found), dtype=torch.bool)
        img_ids, starts = np.unique(found.img_ids, return_index=True)
        ends = np.append(starts, len(found))[1:]
        for img_id, start, end in zip(img_ids.tolist(), starts, ends, strict=True):
            rows = slice(int(start), int(end))
            judged[rows], correct[rows] = judge_detections(
                truth.image(img_id), bboxes[rows], scores[rows], labels[rows]
            )
        num_classes = len(truth.cat_ids)
        return reliability_counts(
            scores[judged], labels[judged], correct[judged], num_classes, NUM_BINS
        )

    def _calibration(self, reliability: Tensor) -> dict[str, float]:
        """ECE and class-conditional ECE."""
        per_class = class_conditional_ece(reliability, MIN_DETECTIONS_PER_CLASS)
        values = {
            'ece': float(expected_calibration_error(reliability)),
            'cc_ece': float(per_class.nanmean()),
        }
        if self.groups is not None:
            means = group_mean(per_class, self.groups)
            for letter, mean in zip(FREQUENCY_LETTERS, means.tolist(), strict=True):
                values[f'cc_ece_{letter}'] = mean
        return values


def encode_masks(masks: Tensor | np.ndarray | Sequence[dict]) -> np.ndarray:
    """Masks as compressed RLE, all in one call.

    Shape: (N, H, W) bool, or N RLE dicts, which are kept -> (N,) object, dicts.
    """
    if isinstance(masks, (Tensor, np.ndarray)):
        pixels = torch.as_tensor(masks).detach().bool().view(torch.uint8)
        # Transposed on their device: the encoder wants (H, W, N) with H running fastest.
        columns = pixels.permute(0, 2, 1).contiguous().cpu().numpy()
        masks = mask_utils.encode(columns.transpose(2, 1, 0)) if len(columns) else []
    # An array of objects, because mmengine walks through lists and dicts of results.
    encoded = np.empty(len(masks), dtype=object)
    encoded[:] = list(masks)
    return encoded


def _array(values: Tensor | np.ndarray, dtype: type) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        values = values.numpy()
    return np.asarray(values, dtype=dtype)


def _concatenate(results: Sequence[dict], score_key: str) -> Detections:
    """Detections of all images; ``score_key`` falls back to ``scores``."""
    counts = [len(result['scores']) for result in results]

    def gather(values: list[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(shape, dtype=dtype), *values]).astype(dtype)

    return Detections(
        img_ids=np.repeat(np.array([r['img_id'] for r in results], dtype=np.int64), counts),
        labels=gather([r['labels'] for r in results], (0,), np.int64),
        scores=gather([r.get(score_key, r['scores']) for r in results], (0,), np.float32),
        bboxes=gather([r['bboxes'] for r in results], (0, 4), np.float32),
        masks=(
            gather([r['masks'] for r in results], (0,), object)
            if any('masks' in r for r in results)
            else None
        ),
    )


def _judgeable(found: Detections, truth: GroundTruth, iou_type: str) -> Detections:
    """Detections that LVIS judges: of classes their image says something about, and of some area.

    The evaluation would drop those of other classes too, but only after a dict was made of each:
    with 1,203 classes that is nearly all of them. An empty box or mask is a wrong detection for
    COCO, and none at all for the ``lvis`` package.
    """
    if not truth.federated or len(found) == 0:
        return found
    img_ids, inverse = np.unique(found.img_ids, return_inverse=True)
    judged = torch.stack([truth.image(img_id).judged for img_id in img_ids.tolist()]).numpy()
    found = found[judged[inverse, found.labels]]
    if iou_type == 'segm' and found.masks is not None:
        # One by one: under numpy 2 pycocotools takes at most 255 masks in a call.
        areas = np.array([mask_utils.area(mask) for mask in found.masks], dtype=np.int64)
    else:
        areas = (found.bboxes[:, 2:] - found.bboxes[:, :2]).prod(1)
    return found[areas > 0]
