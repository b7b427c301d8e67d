"""Findings about a config's own values: heads, labeller, metric and sampler against the sets."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmdet_softpl.config_file import find_hook, seesaw_classes, type_name
from mmdet_softpl.messages import some_of
from mmdet_softpl.same_path import same_path

from .config_sets import LABELLED, TEST, UNLABELLED, VALIDATION
from .findings import ERROR, WARNING, Finding
from .image_scan import ScannedImage
from .set_contents import SetContents

LABELLER = 'RareBoostPseudoLabeler'


def config_findings(
    cfg: Mapping[str, Any],
    sets: Sequence[SetContents],
    scanned: Mapping[str, ScannedImage] | None = None,
) -> list[Finding]:
    """What of a config does not fit its data.

    Args:
        cfg: a config.
        sets: what its sets hold.
        scanned: sizes of the images, by path, where they were read.

    Returns:
        The findings.
    """
    return [
        *_sets_present(sets),
        *_heads(cfg, sets),
        *_labeller(cfg, sets),
        *_evaluators(cfg, sets),
        *_sampler(cfg, sets, scanned),
        *_pretrained(cfg),
    ]


def _sets_present(sets: Sequence[SetContents]) -> Iterator[Finding]:
    roles = {s.configured.role for s in sets}
    for role, severity, remedy in (
        (LABELLED, ERROR, 'give `train_dataloader.dataset` a labelled data set'),
        (
            UNLABELLED,
            WARNING,
            'nothing, for a supervised training; otherwise add an UnlabeledImageDataset',
        ),
        (VALIDATION, WARNING, 'give `val_dataloader`, to see whether it gets better'),
    ):
        if role not in roles:
            detail = f'the config has no {role} set'
            yield Finding(severity, 'config', 'missing set', detail, remedy)


def _heads(cfg: Mapping[str, Any], sets: Sequence[SetContents]) -> Iterator[Finding]:
    """As the check at the start of a training: box and mask heads of the second stage."""
    labelled = [s for s in sets if s.configured.role == LABELLED and s.summary is not None]
    if not labelled or labelled[0].summary is None:
        return
    # Of classes that are wrong themselves nothing follows for the heads.
    if any(f.severity == ERROR and 'classes`' in f.kind + f.detail for f in labelled[0].findings):
        return
    wanted = len(labelled[0].summary.classes)
    numbers = {}
    for key, head in _class_heads(cfg.get('model') or {}, 'model'):
        numbers[key] = head['num_classes']
        of_loss = seesaw_classes(head.get('loss_cls') or {})
        if of_loss is not None:
            numbers[f'{key}.loss_cls'] = of_loss
    for key, number in numbers.items():
        if number != wanted:
            yield Finding(
                ERROR,
                'model',
                'other number of classes',
                f'{key}.num_classes={number}, but {labelled[0].configured.ann_file} '
                f'gives {wanted} classes',
                f'set it to {wanted}, or correct `metainfo.classes` of the data sets if a name is '
                'missing or too many there',
            )


def _class_heads(
    node: Any, key: str, in_roi: bool = False
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, (list, tuple)):
        for position, child in enumerate(node):
            yield from _class_heads(child, f'{key}[{position}]', in_roi)
    elif isinstance(node, Mapping):
        last = key.rsplit('.', 1)[-1].partition('[')[0]
        if in_roi and last in ('bbox_head', 'mask_head') and 'num_classes' in node:
            if not node.get('class_agnostic', False):
                yield key, node
            return
        for name, child in node.items():
            yield from _class_heads(child, f'{key}.{name}', in_roi or name == 'roi_head')


def _pretrained(cfg: Mapping[str, Any]) -> Iterator[Finding]:
    """Weights that are not there: a file, or torchvision, which we can do without otherwise."""
    has_torchvision = importlib.util.find_spec('torchvision') is not None
    given = list(_checkpoints(cfg.get('model') or {}, 'model'))
    if isinstance(cfg.get('load_from'), str):
        given.append(('load_from', cfg['load_from']))
    for key, checkpoint in given:
        if '://' not in checkpoint and not os.path.isfile(checkpoint):
            yield Finding(
                ERROR,
                key,
                'missing file',
                f'{checkpoint!r} does not exist; relative paths count from {os.getcwd()!r}',
                'correct the path, or fetch the file',
            )
        if checkpoint.startswith('torchvision://') and not has_torchvision:
            # The machine that trains may be another one.
            yield Finding(
                WARNING,
                key,
                'missing package',
                f'checkpoint={checkpoint!r} needs torchvision, which is not installed here: a '
                'training on this machine stops when it begins',
                'pip install torchvision, in the release that belongs to your torch; or give a '
                'file, or set init_cfg=None to start from scratch',
            )


def _checkpoints(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Key and value of every ``checkpoint`` in a model, those of ``init_cfg``."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, (list, tuple)):
        children = enumerate(node)
    elif isinstance(node, Mapping):
        children = node.items()
        if isinstance(node.get('checkpoint'), str):
            yield key, node['checkpoint']
    for name, child in children:
        yield from _checkpoints(child, f'{key}.{name}')


def _labeller(cfg: Mapping[str, Any], sets: Sequence[SetContents]) -> Iterator[Finding]:
    found = find_hook(cfg, LABELLER)
    if found is None:
        return
    _, hook = found
    path = hook.get('labeled_ann_file') or ''
    if not os.path.isfile(path):
        yield Finding(
            ERROR,
            LABELLER,
            'missing file',
            f'labeled_ann_file={path!r} does not exist; it is not joined to a data_root, and '
            f'relative paths count from {os.getcwd()!r}',
            'start where the paths of the config begin, or give the json of the labelled set',
        )
        return
    own = [s.configured.ann_file for s in sets if s.configured.role == LABELLED]
    if own and not any(same_path(path, other) for other in own):
        yield Finding(
            WARNING,
            LABELLER,
            'other file',
            f'labeled_ann_file={path!r} is not what the student trains on ({", ".join(own)})',
            'give both the same file; boosts and expected rates come from the former',
        )


def _evaluators(cfg: Mapping[str, Any], sets: Sequence[SetContents]) -> Iterator[Finding]:
    for key, role in (('val_evaluator', VALIDATION), ('test_evaluator', TEST)):
        given = cfg.get(key) or ()
        if role == TEST and given == cfg.get('val_evaluator'):
            continue
        metrics = given if isinstance(given, (list, tuple)) else [given]
        read = [s.configured.ann_file for s in sets if s.configured.role == role]
        for metric in metrics:
            for name in ('ann_file', 'labeled_ann_file'):
                path = metric.get(name)
                if not path or '://' in path:
                    continue
                if not os.path.isfile(path):
                    yield Finding(
                        ERROR,
                        key,
                        'missing file',
                        f'{name}={path!r} does not exist; it is not joined to a data_root, and '
                        f'relative paths count from {os.getcwd()!r}',
                        'start where the paths of the config begin, or correct the path',
                    )
                elif name == 'ann_file' and read and not any(same_path(path, r) for r in read):
                    yield Finding(
                        WARNING,
                        key,
                        'other file',
                        f'{name}={path!r} is not what its data loader reads ({", ".join(read)})',
                        'give both the same file',
                    )


def _sampler(
    cfg: Mapping[str, Any],
    sets: Sequence[SetContents],
    scanned: Mapping[str, ScannedImage] | None,
) -> Iterator[Finding]:
    loader = cfg.get('train_dataloader') or {}
    sampler = loader.get('sampler') or {}
    kind = type_name(sampler.get('type'))
    if kind not in ('MultiSourceSampler', 'GroupMultiSourceSampler'):
        return
    subject, ratio = 'train_dataloader.sampler', list(sampler.get('source_ratio') or ())
    sources = (loader.get('dataset') or {}).get('datasets') or ()
    if len(ratio) != len(sources):
        yield Finding(
            ERROR,
            subject,
            'other number of sources',
            f'source_ratio={ratio} for {len(sources)} data sets',
            'give one number for each data set of the ConcatDataset',
        )
        return
    size, loaded = sampler.get('batch_size'), loader.get('batch_size')
    shares = batch_shares(size or 0, ratio)
    if size != loaded:
        whole = batches_are_mixed(shares, loaded or 0)
        yield Finding(
            WARNING if whole else ERROR,
            subject,
            'other batch size',
            f'sampler.batch_size={size}, train_dataloader.batch_size={loaded}',
            'set both alike: otherwise batches have changing shares of labelled images'
            + ('' if whole else ', or none at all, where a training stops'),
        )
    for position, share in enumerate(shares):
        if share == 0:
            yield Finding(
                ERROR,
                subject,
                'source without an image in the batch',
                f'batch_size={size} with source_ratio={ratio} takes no image of data set '
                f'{position}',
                'raise the batch size, or its share',
            )
    if kind == 'GroupMultiSourceSampler':
        yield from _aspect_groups(subject, sets, scanned)


def batch_shares(batch_size: int, source_ratio: Sequence[float]) -> list[int]:
    """Images of each source in a batch, as the host's ``MultiSourceSampler`` counts them.

    Args:
        batch_size: of one GPU.
        source_ratio: share of each source, their sum above 0.

    Returns:
        Images per source; they sum to ``batch_size``.
    """
    shares = [int(batch_size * share / sum(source_ratio)) for share in source_ratio]
    shares[0] = batch_size - sum(shares[1:])
    return shares


def batches_are_mixed(shares: Sequence[int], loaded: int) -> bool:
    """Whether every batch of a loader has all sources, where the sampler counts other batches.

    Args:
        shares: images of each source in what the sampler takes for a batch, in its order.
        loaded: images in a batch of the loader.
    """
    if loaded < 1 or not all(shares):
        return False
    order = [source for source, share in enumerate(shares) for _ in range(share)]
    stream = order * (math.lcm(len(order), loaded) // len(order))
    batches = (set(stream[i : i + loaded]) for i in range(0, len(stream), loaded))
    return all(len(batch) == len(shares) for batch in batches)


def _aspect_groups(
    subject: str, sets: Sequence[SetContents], scanned: Mapping[str, ScannedImage] | None
) -> Iterator[Finding]:
    """The sampler waits for ever where a source lacks a group that another has."""
    training = [s for s in sets if s.configured.role in (LABELLED, UNLABELLED)]
    groups: list[set[str]] = []
    for one in training:
        found = set()
        for image in one.images:
            real = None if scanned is None else scanned.get(image.path)
            height, width = image.height, image.width
            if real is not None and real.readable and not (height and width):
                height, width = real.height, real.width
            if height and width:
                found.add('portrait' if width < height else 'landscape')
        groups.append(found)
    everything = set().union(*groups)
    lacking = [
        f'{one.configured.name} has no {", ".join(sorted(everything - found))} image'
        for one, found in zip(training, groups, strict=True)
        if found and found != everything
    ]
    if lacking:
        yield Finding(
            ERROR,
            subject,
            'empty aspect group',
            f'{some_of(lacking)}; GroupMultiSourceSampler waits for one for ever',
            "use type='MultiSourceSampler'",
        )
