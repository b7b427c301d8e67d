"""The data sets that a config names, found without building or reading them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmengine.utils import is_abs

from mmdet_softpl.config_file import type_name
from mmdet_softpl.same_path import same_path

LABELLED, UNLABELLED, VALIDATION, TEST = 'labelled', 'unlabelled', 'validation', 'test'
COCO, LVIS_V1, LVIS_V05, FOLDER, OTHER = 'coco', 'lvis v1', 'lvis v0.5', 'images', 'other'


@dataclass(frozen=True)
class ConfiguredSet:
    """A data set of a config, its wrappers removed.

    Attributes:
        name: ``role``, with a number where a config has several of the role.
        role: ``'labelled'``, ``'unlabelled'``, ``'validation'`` or ``'test'``.
        key: where the config has it, such as ``'train_dataloader.dataset.datasets[0]'``.
        type: as the config names it.
        kind: how its file is read: ``'coco'``, ``'lvis v1'``, ``'lvis v0.5'``, ``'images'``
            (``UnlabeledImageDataset``) or ``'other'``, which nothing here can read.
        ann_file: joined to the data root; empty for a folder.
        image_root: folder of the images, joined to the data root.
        classes: ``metainfo['classes']`` as the host gets it, or None where it has none. A string
            is a mistake of the config: the host would take it as it is.
        local: False where a backend other than the disk reads the files.
        filter_empty: whether training leaves out images without an annotation.
        min_size: shorter side in pixels below which training leaves an image out.
        oversample_thr: of the ``ClassBalancedDataset`` around it, or None.
        times: how often ``RepeatDataset`` repeats it.
        source: its position in the ``ConcatDataset`` of the training, 0 without one.
        indices: of the config, which take a part of the set; None for all of it.
        with_masks: whether its pipeline loads masks, or its evaluator has the metric ``'segm'``.
        gated: of a ``GeneratedImageDataset`` its ``labeled_ann_file`` and ``target_count``; None
            for any other.
    """

    name: str
    role: str
    key: str
    type: str
    kind: str
    ann_file: str
    image_root: str
    classes: tuple[str, ...] | str | None
    local: bool
    filter_empty: bool
    min_size: int
    oversample_thr: float | None
    times: int
    source: int
    indices: Any
    with_masks: bool
    gated: tuple[str | None, int | None] | None = None


def configured_sets(cfg: Mapping[str, Any]) -> list[ConfiguredSet]:
    """Labelled, unlabelled, validation and test sets of a config.

    Wrappers (``ConcatDataset``, ``ClassBalancedDataset``, ``RepeatDataset`` and whatever else has
    ``dataset`` or ``datasets``) are looked through. A training set is unlabelled if it is an
    ``UnlabeledImageDataset``, or if the ``MultiBranch`` of its pipeline has no branch ``sup``. A
    test set that is a validation set is left out.

    Args:
        cfg: a config, such as mmengine's ``Config``.

    Returns:
        The sets, in the order of the config.
    """
    found: list[ConfiguredSet] = []
    for loader, role, evaluator in (
        ('train_dataloader', LABELLED, None),
        ('val_dataloader', VALIDATION, 'val_evaluator'),
        ('test_dataloader', TEST, 'test_evaluator'),
    ):
        dataset = (cfg.get(loader) or {}).get('dataset')
        for key, part, around in _leaves(dataset, f'{loader}.dataset', {}):
            leaf = part
            if around.get('pipeline'):
                leaf = {**part, 'pipeline': [*(part.get('pipeline') or ()), *around['pipeline']]}
            one = _configured(key, leaf, around, role)
            known = {(s.ann_file, s.image_root) for s in found if s.role == VALIDATION}
            if role != TEST or (one.ann_file, one.image_root) not in known:
                judged = evaluator is not None and _judges_masks(cfg.get(evaluator))
                found.append(replace(one, with_masks=one.with_masks or judged))
    return _numbered(found)


def keeps_empty(cfg: Mapping[str, Any], ann_file: str) -> bool:
    """Whether a config also trains on the images of a labelled file that hold nothing."""
    return any(
        not one.filter_empty
        for one in configured_sets(cfg)
        if one.role == LABELLED and same_path(one.ann_file, ann_file)
    )


def dataset_leaves(dataset: Any) -> Iterator[Any]:
    """The very parts of a config that are data sets which read files, without their wrappers.

    Args:
        dataset: ``dataset`` of a data loader; None has no part.
    """
    return (leaf for _, leaf, _ in _leaves(dataset, '', {}))


def _leaves(
    dataset: Any, key: str, around: dict[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """Key, config and what the wrappers do, of every data set that reads files."""
    if not isinstance(dataset, Mapping):
        return
    if isinstance(dataset.get('datasets'), (list, tuple)):
        for position, child in enumerate(dataset['datasets']):
            inner = {'source': position, **around}
            yield from _leaves(child, f'{key}.datasets[{position}]', inner)
    elif isinstance(dataset.get('dataset'), Mapping):
        around = dict(around)
        if 'oversample_thr' in dataset:
            around['oversample_thr'] = dataset['oversample_thr']
        around['times'] = around.get('times', 1) * dataset.get('times', 1)
        # MultiImageMixDataset goes on where the pipeline of its data set ends.
        around['pipeline'] = [*(dataset.get('pipeline') or ()), *around.get('pipeline', ())]
        yield from _leaves(dataset['dataset'], f'{key}.dataset', around)
    else:
        yield key, dataset, around


def _configured(
    key: str, dataset: Mapping[str, Any], around: dict[str, Any], role: str
) -> ConfiguredSet:
    kind, defaults, is_gated = _kind(dataset.get('type'))
    branches = [
        t for t in dataset.get('pipeline') or () if type_name(t.get('type')) == 'MultiBranch'
    ]
    if role == LABELLED and (kind == FOLDER or any('sup' not in b for b in branches)):
        role = UNLABELLED
    root = dataset.get('data_root') or ''
    ann_file = dataset.get('ann_file') or ''
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    filters = dataset.get('filter_cfg') or {}
    training = role in (LABELLED, UNLABELLED) and not dataset.get('test_mode', False)
    if isinstance(dataset.get('type'), type):
        shown = dataset['type'].__name__
    else:
        shown = str(dataset.get('type'))
    return ConfiguredSet(
        name=role,
        role=role,
        key=key,
        type=shown,
        kind=kind,
        ann_file=joined(root, ann_file) if ann_file else '',
        image_root=joined(root, prefix),
        classes=_classes(dataset.get('metainfo'), defaults),
        local=backend == 'local' and '://' not in ann_file + root + prefix,
        filter_empty=bool(training and filters.get('filter_empty_gt', False)),
        min_size=int(filters.get('min_size', 0)) if training else 0,
        oversample_thr=around.get('oversample_thr'),
        times=int(around.get('times', 1)),
        source=around.get('source', 0),
        indices=dataset.get('indices'),
        with_masks=any(t.get('with_mask', False) for t in dataset.get('pipeline') or ()),
        gated=(dataset.get('labeled_ann_file'), dataset.get('target_count')) if is_gated else None,
    )


def _judges_masks(evaluator: Any) -> bool:
    for metric in evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]:
        # Without the key our metric judges both, the host's boxes alone.
        both = ('bbox', 'segm') if type_name(metric.get('type')) == 'LongTailMetric' else 'bbox'
        names = metric.get('metric', both)
        if 'segm' in ([names] if isinstance(names, str) else names):
            return True
    return False


def joined(root: str, path: str) -> str:
    """A path of a config joined to its ``data_root``, as the host joins them."""
    return path if is_abs(path) or not root else os.path.join(root, path)


def _kind(type_: Any) -> tuple[str, tuple[str, ...] | None, bool]:
    """How a type of data set reads its file, the classes it has by itself, whether it is gated."""
    from mmdet.datasets import CocoDataset, CocoPanopticDataset, LVISV05Dataset, LVISV1Dataset
    from mmdet.registry import DATASETS

    from .generated_image_dataset import GeneratedImageDataset
    from .unlabeled_image_dataset import UnlabeledImageDataset

    if isinstance(type_, type):
        cls: Any = type_
    else:
        try:
            cls = DATASETS.get(str(type_))
        except (ImportError, KeyError, AttributeError):
            cls = None
    if not isinstance(cls, type) or issubclass(cls, CocoPanopticDataset):
        return OTHER, None, False
    classes = getattr(cls, 'METAINFO', {}).get('classes')
    defaults = tuple(classes) if classes else None
    for kind, base in (
        (FOLDER, UnlabeledImageDataset),
        (LVIS_V1, LVISV1Dataset),
        (LVIS_V05, LVISV05Dataset),
        (COCO, CocoDataset),
    ):
        if issubclass(cls, base):
            return kind, defaults, issubclass(cls, GeneratedImageDataset)
    return OTHER, defaults, False


def _classes(
    metainfo: Mapping[str, Any] | None, defaults: tuple[str, ...] | None
) -> tuple[str, ...] | str | None:
    given = (metainfo or {}).get('classes')
    if given is None:
        return defaults
    if isinstance(given, str):
        if not os.path.isfile(given):
            return given
        # As mmengine's list_from_file.
        with open(given, encoding='utf-8') as file:
            return tuple(line.rstrip('\n\r') for line in file)
    return tuple(given)


def _numbered(sets: list[ConfiguredSet]) -> list[ConfiguredSet]:
    total, seen, named = Counter(s.role for s in sets), Counter[str](), []
    for one in sets:
        seen[one.role] += 1
        number = f' {seen[one.role]}' if total[one.role] > 1 else ''
        named.append(replace(one, name=f'{one.role}{number}'))
    return named
