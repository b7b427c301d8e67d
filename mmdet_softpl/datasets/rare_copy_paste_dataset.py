"""A data set whose images get labelled objects, rare classes more often."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmdet.datasets.transforms import LoadAnnotations, LoadEmptyAnnotations
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import BaseDataset, force_full_init

from mmdet_softpl.checks import check_range
from mmdet_softpl.registry import DATASETS

from .cutouts import Cutout, cut_out, paste

# In the metainfo of unlabelled images: what instances they have were pasted in. Set here alone, so
# that annotations which a data set happens to load never become labels.
PASTED_KEY = 'holds_pasted_objects'
# An object of which less is left is not one that the detector should find.
MIN_VISIBLE = 0.3


@MMDET_DATASETS.register_module()
@DATASETS.register_module()
class RareCopyPasteDataset:
    """Pastes labelled objects into images; rare classes come up more often.

    Right after the annotations are loaded an image gets up to ``max_num_pasted`` objects of other
    images (or its own), mirrored in half of the cases, at a random place; what they cover is
    taken from the masks below, and objects of which less than 0.3 is left are forgotten. All
    later transforms see one ordinary image. Objects keep their size relative to the image, times a
    factor from ``scale_range``. That is Simple Copy-Paste (arXiv 2012.07177) with draws by class;
    mmdet's ``CopyPaste`` draws an image, whatever its classes, and leaves objects where they were.

    With ``source`` the objects are those of another, labelled data set and the images unlabelled:
    ``CalibratedSoftTeacher`` then takes a pasted object's own label and mask in the place of what
    the teacher sees there. What annotations an unlabelled image may have is forgotten.

    Wrap the data set itself; ``ClassBalancedDataset`` and the like go around this wrapper.

    Args:
        dataset: Data set, which stays as it is, or its config. Without ``source`` it is labelled
            and its pipeline must load masks as bitmaps (``LoadAnnotations(with_mask=True)``); with
            ``source`` its pipeline must have ``LoadEmptyAnnotations``.
        source: Labelled data set that the objects come from, or its config; its pipeline must load
            masks as bitmaps. None: ``dataset``.
        max_num_pasted: Most objects that an image gets, >= 1; their number is uniform from 0 on.
        balance: An object of a class with n objects is drawn with a weight of
            ``n ** -balance``, in [0, 1]. 0: all objects alike. 1: all classes alike. 0.5: as
            repeat factors have it (arXiv 1908.03195, appendix).
        scale_range: Least and largest factor of an object's size, > 0.
        lazy_init: Wait with what is read of the annotations for ``full_init``.

    Raises:
        TypeError: ``dataset`` is another wrapper.
        ValueError: An argument is out of its range, the pipeline does not load masks as bitmaps and
            horizontal boxes, or loads semantic maps, or no image has an object with a mask; later,
            images of different depth or channels.
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        source: dict | BaseDataset | None = None,
        max_num_pasted: int = 3,
        balance: float = 1.0,
        scale_range: tuple[float, float] = (0.7, 1.4),
        lazy_init: bool = False,
    ) -> None:
        name = type(self).__name__
        check_range(name, 'max_num_pasted', max_num_pasted, 1, None, whole=True)
        check_range(name, 'balance', balance, 0, 1)
        try:
            low, high = scale_range
        except (TypeError, ValueError):
            raise ValueError(
                f'{name}: scale_range must be two factors, got {scale_range!r}.'
            ) from None
        check_range(name, 'scale_range[0]', low, 0, None, include_lower=False)
        check_range(name, 'scale_range[1]', high, low, None)
        self.max_num_pasted = max_num_pasted
        self.balance = balance
        self.scale_range = (low, high)
        self.dataset = _built(dataset, name)
        self.source = self.dataset if source is None else _built(source, name)
        self._load = _loading_steps(self.source, name)
        self._is_unlabeled = source is not None
        # A copy: whoever holds the data set itself gets its images as they are.
        self.dataset = copy.copy(self.dataset)
        steps, loaded = self.dataset.pipeline.transforms, len(self._load.transforms)
        if self._is_unlabeled:
            loaded = _steps_until_empty(self.dataset, name)
        self.dataset.pipeline = Compose([*steps[:loaded], self._paste_objects, *steps[loaded:]])
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    @property
    def metainfo(self) -> dict[str, Any]:
        """Of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the annotations; done once.

        Raises:
            ValueError: No image has an object with a mask.
        """
        if self._fully_initialized:
            return
        self.dataset.full_init()
        self.source.full_init()
        self._objects, self._shares = _objects_by_weight(self.source, self.balance)
        if len(self._objects) == 0:
            raise ValueError(
                f'{type(self).__name__}: {self.source.ann_file} has no object with a mask that '
                'could be pasted; take the wrapper away.'
            )
        self._fully_initialized = True

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Of the image ``idx``, with its own objects."""
        return self.dataset.get_data_info(idx)

    @force_full_init
    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the image's own objects, by which ``ClassBalancedDataset`` goes."""
        return self.dataset.get_cat_ids(idx)

    @force_full_init
    def __len__(self) -> int:
        return len(self.dataset)

    @force_full_init
    def __getitem__(self, idx: int) -> Any:
        item = self.dataset[idx]
        if self._is_unlabeled:
            _mark(item['data_samples'])
        return item

    def get_subset_(self, indices: list[int] | int) -> None:
        """Not supported, as by the host's wrappers.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f'{type(self).__name__}: take a part of the data set first (`indices` in its config), '
            'then wrap it.'
        )

    get_subset = get_subset_

    def _paste_objects(self, results: dict[str, Any]) -> dict[str, Any]:
        """The step that stands in the pipeline."""
        if self._is_unlabeled:
            results = _without_annotations(results)
        wanted = np.random.randint(self.max_num_pasted + 1)
        found = (self._draw(results) for _ in range(wanted))
        return _pasted(results, [one for one in found if one is not None])

    def _draw(self, results: dict[str, Any]) -> tuple[Cutout, int] | None:
        """An object for a loaded image, and its label."""
        target = results['img']
        # The last share is 1 but for rounding.
        drawn = min(
            int(np.searchsorted(self._shares, np.random.rand(), side='right')),
            len(self._objects) - 1,
        )
        image, position = self._objects[drawn]
        info = self.source.get_data_info(int(image))
        # Masks of the others need not be decoded.
        info['instances'] = [info['instances'][position]]
        source = self._load(info)
        if source is not None:
            _check_alike(source, results, type(self).__name__)
        # The loader gives an empty mask to an outline of less than three points.
        cutout = None if source is None else cut_out(source['img'], source['gt_masks'].masks[0])
        if cutout is None:
            return None
        factor = np.random.uniform(*self.scale_range)
        factor *= math.sqrt(math.prod(target.shape[:2]) / math.prod(source['img'].shape[:2]))
        fitting = min(
            side / length for side, length in zip(target.shape, cutout.mask.shape, strict=False)
        )
        resized = cutout.resized(min(factor, fitting))
        if resized is None:
            return None
        return (
            resized.mirrored() if np.random.rand() < 0.5 else resized,
            int(source['gt_bboxes_labels'][0]),
        )


def _built(dataset: dict | BaseDataset, owner: str) -> BaseDataset:
    found = MMDET_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
    if not isinstance(found, BaseDataset):
        raise TypeError(
            f'{owner}: dataset and source must be data sets that read files, got the wrapper '
            f'{type(found).__name__}; put it around {owner} instead.'
        )
    return found


def _steps_until_empty(dataset: BaseDataset, owner: str) -> int:
    """How many steps of a pipeline there are until an image has its empty annotations."""
    steps = dataset.pipeline.transforms
    for position, step in enumerate(steps):
        if isinstance(step, LoadEmptyAnnotations):
            return position + 1
    raise ValueError(
        f'{owner}: with source the pipeline of dataset must have LoadEmptyAnnotations after its '
        f'image is loaded; it has {[type(step).__name__ for step in steps]}.'
    )


def _without_annotations(results: dict[str, Any]) -> dict[str, Any]:
    height, width = results['img'].shape[:2]
    return results | dict(
        gt_bboxes=HorizontalBoxes(np.zeros((0, 4), dtype=np.float32)),
        gt_bboxes_labels=np.zeros(0, dtype=np.int64),
        gt_ignore_flags=np.zeros(0, dtype=bool),
        gt_masks=BitmapMasks(np.zeros((0, height, width), dtype=np.uint8), height, width),
    )


def _mark(data_samples: dict[str, Any] | DetDataSample) -> None:
    """Say of the views of an unlabelled image that their instances are pasted objects."""
    views = data_samples.values() if isinstance(data_samples, dict) else [data_samples]
    for sample in views:
        if sample is not None:
            sample.set_metainfo({PASTED_KEY: True})


def _loading_steps(dataset: BaseDataset, owner: str) -> Compose:
    """The first steps of a pipeline, until the annotations are loaded."""
    steps = dataset.pipeline.transforms
    for position, step in enumerate(steps):
        if isinstance(step, LoadAnnotations):
            if not (step.with_mask and step.with_bbox and step.with_label and step.poly2mask):
                raise ValueError(
                    f'{owner}: the pipeline of {dataset.ann_file} must have LoadAnnotations('
                    'with_bbox=True, with_mask=True), and poly2mask must not be False: objects '
                    'are cut out along their masks.'
                )
            if step.box_type != 'hbox':
                raise ValueError(
                    f'{owner}: {dataset.ann_file} is loaded with LoadAnnotations(box_type='
                    f"{step.box_type!r}), which is not supported; use 'hbox', the default."
                )
            if step.with_seg:
                raise ValueError(
                    f'{owner}: LoadAnnotations(with_seg=True) loads semantic maps, in which '
                    'nothing is pasted; set it to False, or take the wrapper away.'
                )
            return Compose(steps[: position + 1])
    raise ValueError(
        f'{owner}: the pipeline of {dataset.ann_file} has no LoadAnnotations, so there are no '
        'objects to paste.'
    )


def _check_alike(source: dict[str, Any], target: dict[str, Any], owner: str) -> None:
    kinds = [(image.dtype.name, image.shape[2:]) for image in (source['img'], target['img'])]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f'{owner}: {source["img_path"]} has pixels of {kinds[0][0]} and channels '
            f'{kinds[0][1]}, {target["img_path"]} of {kinds[1][0]} and {kinds[1][1]}; load both '
            "alike, by LoadImageFromFile(color_type='color')."
        )


def _objects_by_weight(dataset: BaseDataset, balance: float) -> tuple[np.ndarray, np.ndarray]:
    """All objects that may be pasted, (n, 2) image and position in it, and their summed shares."""
    found = [
        (image, position, instance['bbox_label'])
        for image in range(len(dataset))
        for position, instance in enumerate(dataset.get_data_info(image)['instances'])
        if not instance.get('ignore_flag') and instance.get('mask')
    ]
    objects = np.array(found, dtype=np.int64).reshape(-1, 3)
    labels = objects[:, 2]
    weights = np.bincount(labels)[labels].astype(np.float64) ** -balance
    return objects[:, :2].copy(), np.cumsum(weights) / max(weights.sum(), 1e-300)


def _pasted(results: dict[str, Any], objects: list[tuple[Cutout, int]]) -> dict[str, Any]:
    """The loaded image with objects at random places."""
    if not objects:
        return results
    height, width = results['img'].shape[:2]
    image, own = results['img'].copy(), results['gt_masks'].masks
    masks = np.concatenate([own, np.zeros((len(objects), height, width), own.dtype)])
    lost = np.zeros(len(masks), dtype=np.int64)
    for i, (cutout, _) in enumerate(objects, len(own)):
        h, w = cutout.mask.shape
        top, left = np.random.randint(height - h + 1), np.random.randint(width - w + 1)
        lost[:i] += paste(image, masks[:i], cutout, top, left)
        masks[i, top : top + h, left : left + w] = cutout.mask
    keep = np.ones(len(masks), dtype=bool)
    covered = np.flatnonzero(lost)
    left_over = masks[covered].sum((1, 2), dtype=np.int64)
    keep[covered] = left_over >= np.maximum(MIN_VISIBLE * (left_over + lost[covered]), 1)

    new_labels = np.array([label for _, label in objects], dtype=np.int64)
    labels = np.concatenate([results['gt_bboxes_labels'], new_labels])
    ignored = np.concatenate([results['gt_ignore_flags'], np.zeros(len(objects), dtype=bool)])
    gt_masks = BitmapMasks(masks[keep], height, width)
    bboxes = gt_masks.get_bboxes(type(results['gt_bboxes']))
    # Annotated boxes are finer than those of masks: where nothing was covered they stay.
    intact = (lost == 0) & (np.arange(len(masks)) < len(own))
    bboxes[intact[keep]] = results['gt_bboxes'][intact[: len(own)]]
    results.update(
        img=image,
        gt_masks=gt_masks,
        gt_bboxes=bboxes,
        gt_bboxes_labels=labels[keep],
        gt_ignore_flags=ignored[keep],
    )
    return results
