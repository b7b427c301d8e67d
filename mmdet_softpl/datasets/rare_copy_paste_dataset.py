"""Data sets side by side whose images get labelled objects, rare classes more often."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmdet.datasets import ConcatDataset
from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import BaseDataset

from mmdet_softpl.checks import check_range
from mmdet_softpl.registry import DATASETS

from .cutouts import Cutout, cut_out, paste
from .generated_image_dataset import GeneratedImageDataset
from .pasting_steps import (
    annotated_after,
    has_unlabeled_branches,
    is_unlabeled,
    loading_steps,
    mark_pasted,
    name_of,
    with_plain_student_view,
    without_annotations,
)

# An object of which less is left is not one that the detector should find.
MIN_VISIBLE = 0.3


@MMDET_DATASETS.register_module()
@DATASETS.register_module()
class RareCopyPasteDataset(ConcatDataset):
    """mmdet's ``ConcatDataset`` that pastes labelled objects into its images, rare classes more.

    Right after the annotations are loaded an image gets up to ``max_num_pasted`` objects of
    labelled images, mirrored in half of the cases, at a random place; what they cover is taken from
    the masks below, and objects of which less than 0.3 is left are forgotten. All later transforms
    see one ordinary image. Objects keep their size relative to the image, times a factor from
    ``scale_range``. That is Simple Copy-Paste (arXiv 2012.07177) with draws by class; mmdet's
    ``CopyPaste`` draws an image, whatever its classes, and leaves objects where they were.

    In unlabelled images ``CalibratedSoftTeacher`` takes a pasted object's own label and mask in the
    place of what the teacher sees there. Unlabelled are data sets with ``LoadEmptyAnnotations`` or
    a ``MultiBranch`` without ``sup``; annotations that they may have are forgotten. The images of
    ``GeneratedImageDataset`` neither give objects nor get any, nor do unlabelled ones inside a
    ``MultiImageMixDataset``.

    Args:
        datasets: Data sets, which stay as they are, or configs, also of wrappers around them such
            as ``ClassBalancedDataset``. Pipelines of labelled ones must load masks as bitmaps
            (``LoadAnnotations(with_mask=True)``).
        max_num_pasted: Most objects that an image gets, >= 0; their number is uniform from 0 on.
            With 0 this is ``ConcatDataset``.
        balance: An object of a class with n objects is drawn with a weight of
            ``n ** -balance``, in [0, 1]. 0: all objects alike. 1: all classes alike. 0.5: as
            repeat factors have it (arXiv 1908.03195, appendix).
        scale_range: Least and largest factor of an object's size, > 0.
        unlabeled: Whether unlabelled images get objects, too.
        lazy_init: Wait with what is read of the annotations for ``full_init``.
        ignore_keys: Keys of ``metainfo`` that may differ, as in the host.

    Raises:
        ValueError: An argument is out of its range; a pipeline loads no masks as bitmaps, other
            boxes than horizontal ones, semantic maps, or neither annotations nor empty ones;
            labelled sets have other classes; no labelled image has an object with a mask; later,
            images of different depth or channels.
    """

    datasets: list[Any]
    _fully_initialized: bool

    def __init__(
        self,
        datasets: Sequence[dict | BaseDataset],
        max_num_pasted: int = 3,
        balance: float = 1.0,
        scale_range: tuple[float, float] = (0.7, 1.4),
        unlabeled: bool = True,
        lazy_init: bool = False,
        ignore_keys: str | list[str] | None = None,
    ) -> None:
        name = type(self).__name__
        check_range(name, 'max_num_pasted', max_num_pasted, 0, None, whole=True)
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
        self.unlabeled = unlabeled
        super().__init__(datasets, lazy_init=True, ignore_keys=ignore_keys)
        # What objects come from, each with the steps that load an image of it.
        self._sources: list[tuple[BaseDataset, Compose]] = []
        if max_num_pasted:
            self.datasets = [_changed(dataset, self._with_pasting) for dataset in self.datasets]
            _check_classes([dataset for dataset, _ in self._sources], name)
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the annotations; done once.

        Raises:
            ValueError: No labelled image has an object with a mask.
        """
        if self._fully_initialized:
            return
        super().full_init()
        if not self.max_num_pasted:
            return
        datasets = [dataset for dataset, _ in self._sources]
        self._objects, self._shares = _objects_by_weight(datasets, self.balance)
        if len(self._objects) == 0:
            self._fully_initialized = False
            files = ', '.join(str(dataset.ann_file) for dataset in datasets)
            raise ValueError(
                f'{type(self).__name__}: no object with a mask that could be pasted in '
                + (f'{files}' if files else 'any of the data sets: none of them is labelled')
                + '; set max_num_pasted=0.'
            )

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of an image's own objects, which samplers and wrappers of the host draw by."""
        number, image = self._get_ori_dataset_idx(idx)
        return self.datasets[number].get_cat_ids(image)

    def _with_pasting(self, dataset: BaseDataset) -> BaseDataset:
        """A copy of a data set whose pipeline pastes objects."""
        if isinstance(dataset, GeneratedImageDataset):
            return dataset
        owner, steps = type(self).__name__, dataset.pipeline.transforms
        # A copy: whoever holds the data set itself gets its images as they are.
        made = copy.copy(dataset)
        if not is_unlabeled(dataset):
            load = loading_steps(dataset, owner)
            rest = steps[len(load.transforms) :]
            made.pipeline = Compose([*load.transforms, self._paste_objects, *rest])
            self._sources.append((made, load))
        elif self.unlabeled:
            loaded = annotated_after(dataset, owner)
            rest = [with_plain_student_view(step) for step in steps[loaded:]]
            made.pipeline = Compose(
                [*steps[:loaded], self._paste_into_unlabeled, *rest, mark_pasted]
            )
        return made

    def _paste_into_unlabeled(self, results: dict[str, Any]) -> dict[str, Any]:
        """The step that stands in the pipelines of unlabelled images."""
        return self._paste_objects(without_annotations(results))

    def _paste_objects(self, results: dict[str, Any]) -> dict[str, Any]:
        """The step that stands in the pipelines of labelled images."""
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
        number, image, position = self._objects[drawn].tolist()
        dataset, load = self._sources[number]
        info = dataset.get_data_info(image)
        # Masks of the others need not be decoded.
        info['instances'] = [info['instances'][position]]
        source = load(info)
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


def _changed(
    dataset: Any, change: Callable[[BaseDataset], BaseDataset], later: Sequence[Any] = ()
) -> Any:
    """A data set with what ``change`` makes of those that read files in their places.

    Unlabelled ones whose images are mixed before the views are made, by the steps ``later`` of
    ``MultiImageMixDataset``, stay as they are: nothing could say what was pasted.
    """
    if hasattr(dataset, 'datasets'):
        dataset.datasets = [_changed(child, change, later) for child in dataset.datasets]
        return dataset
    if hasattr(dataset, 'dataset'):
        later = [*getattr(dataset, 'pipeline', ()), *later]
        # The host takes wrappers as configs alone, so it is nobody else's.
        dataset.dataset = _changed(dataset.dataset, change, later)
        return dataset
    if later and (is_unlabeled(dataset) or has_unlabeled_branches(later)):
        return dataset
    return change(dataset)


def _check_classes(datasets: Sequence[BaseDataset], owner: str) -> None:
    """Labels are indices into the names, which so must not differ, whatever ``ignore_keys`` are."""
    for dataset in datasets[1:]:
        names = [tuple(one.metainfo.get('classes') or ()) for one in (datasets[0], dataset)]
        if names[0] != names[1]:
            raise ValueError(
                f'{owner}: {name_of(datasets[0])} has the classes {names[0]}, '
                f'{name_of(dataset)} {names[1]}; give both the same metainfo=dict(classes=...).'
            )


def _check_alike(source: dict[str, Any], target: dict[str, Any], owner: str) -> None:
    kinds = [(image.dtype.name, image.shape[2:]) for image in (source['img'], target['img'])]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f'{owner}: {source["img_path"]} has pixels of {kinds[0][0]} and channels '
            f'{kinds[0][1]}, {target["img_path"]} of {kinds[1][0]} and {kinds[1][1]}; load both '
            "alike, by LoadImageFromFile(color_type='color')."
        )


def _objects_by_weight(
    datasets: Sequence[BaseDataset], balance: float
) -> tuple[np.ndarray, np.ndarray]:
    """All objects that may be pasted, (n, 3) data set, image, position, and summed shares (n,)."""
    found = [place for i, dataset in enumerate(datasets) for place in _objects_of(dataset, i)]
    objects = np.array(found, dtype=np.int64).reshape(-1, 4)
    labels = objects[:, 3]
    weights = np.bincount(labels)[labels].astype(np.float64) ** -balance
    return objects[:, :3].copy(), np.cumsum(weights) / max(weights.sum(), 1e-300)


def _objects_of(dataset: BaseDataset, number: int) -> Iterator[tuple[int, int, int, int]]:
    for image in range(len(dataset)):
        for position, instance in enumerate(dataset.get_data_info(image)['instances']):
            if not instance.get('ignore_flag') and instance.get('mask'):
                yield number, image, position, instance['bbox_label']


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
    gt_masks = BitmapMasks(masks if keep.all() else masks[keep], height, width)
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
