"""Parts of a training config that commands look for and change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmdet_softpl.config_file import find_hook, type_name
from mmdet_softpl.datasets.config_sets import (
    LABELLED,
    ConfiguredSet,
    configured_sets,
    dataset_leaves,
    joined,
)
from mmdet_softpl.same_path import same_path


class ConfigPartError(ValueError):
    """A config lacks a part that a command needs."""


def labeller_of(cfg: Config) -> tuple[int, Any]:
    """Index and config of ``RareBoostPseudoLabeler``.

    Raises:
        ConfigPartError: The config has none.
    """
    found = find_hook(cfg, 'RareBoostPseudoLabeler')
    if found is None:
        raise ConfigPartError(
            f'{cfg.filename}: custom_hooks has no RareBoostPseudoLabeler, which thresholds and '
            "boosts belong to; add dict(type='mmdet_softpl.RareBoostPseudoLabeler', "
            "labeled_ann_file='...')."
        )
    return found


def loading_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """How validation images are loaded (test images where there are none), without their labels.

    Raises:
        ConfigPartError: The config has neither.
    """
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    leaves = list(dataset_leaves(loader.dataset)) if loader else []
    if not leaves or not leaves[0].get('pipeline'):
        raise ConfigPartError(
            f'{cfg.filename}: neither val_dataloader nor test_dataloader has a data set with a '
            '`pipeline`; add one, by which images are loaded.'
        )
    steps = [dict(step) for step in leaves[0]['pipeline']]
    return [step for step in steps if type_name(step['type']) != 'LoadAnnotations']


def annotation_path(dataset: Mapping) -> str:
    """Path of a data set's json, joined with its ``data_root`` as mmengine does."""
    path = dataset.get('ann_file') or ''
    return joined(dataset.get('data_root') or '', path) if path else ''


def training_set(cfg: Config, role: str, or_else: str = '') -> tuple[ConfiguredSet, dict[str, Any]]:
    """The first training set of a role, and a copy of its config.

    Args:
        cfg: Of a training.
        role: ``'labelled'`` or ``'unlabelled'``.
        or_else: What else the user can do, for the message.

    Raises:
        ConfigPartError: The config has none.
    """
    loader = cfg.to_dict().get('train_dataloader') or {}
    # The training sets come first, in the order of the config.
    for one, leaf in zip(configured_sets(cfg), dataset_leaves(loader.get('dataset')), strict=False):
        if one.role == role:
            return one, dict(leaf)
    raise ConfigPartError(
        f'{cfg.filename}: train_dataloader has no {role} set. Give the config of a '
        f'semi-supervised training{or_else}.'
    )


def labelled_leaves(cfg: Config, labeled_ann_file: str) -> list[Any]:
    """Training sets that read this labelled json.

    Raises:
        ConfigPartError: There is none.
    """
    leaves = [
        leaf
        for leaf in dataset_leaves(cfg.train_dataloader.dataset)
        if same_path(annotation_path(leaf), labeled_ann_file)
    ]
    if not leaves:
        raise ConfigPartError(
            f'{cfg.filename}: no training set reads {labeled_ann_file!r}, the labeled_ann_file of '
            'RareBoostPseudoLabeler; give both the same file.'
        )
    return leaves


def labelled_file_of(cfg: Config) -> str:
    """The json whose labelled images count the classes: the labeller's, else the training set's.

    Raises:
        ConfigPartError: The config has no labelled json, or several.
        FileNotFoundError: It does not exist.
    """
    hook = find_hook(cfg, 'RareBoostPseudoLabeler')
    files = {one.ann_file for one in configured_sets(cfg) if one.role == LABELLED and one.ann_file}
    if hook is not None:
        files = {hook[1]['labeled_ann_file']}
    if len(files) != 1:
        raise ConfigPartError(
            f'{cfg.filename}: {len(files)} labelled annotation files ({", ".join(sorted(files))}), '
            'but the classes are counted in one; give a RareBoostPseudoLabeler with '
            "labeled_ann_file='...', or a config whose training set reads one file."
        )
    (file,) = files
    if not os.path.isfile(file):
        raise FileNotFoundError(
            f'{file}: the labelled json of the config does not exist; relative paths count from '
            f'{os.getcwd()!r}. Start where the paths of the config begin.'
        )
    return file


def held_out_set(
    cfg: Config, ann_file: str | None = None, images: str | None = None
) -> dict[str, Any]:
    """Config of the labelled images that are not trained on.

    Args:
        cfg: Of a training; its ``val_dataloader`` (else ``test_dataloader``) is the template,
            whose pipeline is used.
        ann_file: json of other images; None: the validation set.
        images: Their folder.

    Raises:
        ConfigPartError: There is no validation set, or only one of the two is given.
        FileNotFoundError: A file or folder does not exist.
    """
    if (ann_file is None) != (images is None):
        raise ConfigPartError('--held-out and --held-out-images belong together; give both.')
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    if loader is None:
        raise ConfigPartError(
            f'{cfg.filename}: there is no val_dataloader and no test_dataloader; add one, whose '
            'pipeline the held-out images go through.'
        )
    leaves = list(dataset_leaves(loader.dataset))
    if len(leaves) != 1:
        raise ConfigPartError(
            f'{cfg.filename}: val_dataloader has {len(leaves)} data sets; one is needed.'
        )
    leaf = leaves[0].to_dict() if hasattr(leaves[0], 'to_dict') else dict(leaves[0])
    if ann_file is not None and images is not None:
        if not os.path.isdir(images):
            raise FileNotFoundError(f'--held-out-images {images!r} is no folder.')
        leaf.update(
            ann_file=os.path.abspath(ann_file),
            data_root='',
            data_prefix=dict(img=os.path.abspath(images)),
        )
    path = annotation_path(leaf)
    if not os.path.isfile(path):
        key = '--held-out' if ann_file is not None else 'ann_file of val_dataloader'
        raise FileNotFoundError(
            f'{key}: {path!r} is no file; relative paths count from {os.getcwd()!r}. Start where '
            'the paths of the config begin, or give labelled images that are here.'
        )
    return leaf
