"""Checkpoints of plain and semi-supervised detectors: their parts, and whether a head fits."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn


def check_given(teacher_checkpoint: str | None) -> None:
    """Refuse a ``teacher_checkpoint`` that is a local path and not there.

    Raises:
        FileNotFoundError: It is missing.
    """
    if not teacher_checkpoint or '://' in teacher_checkpoint or Path(teacher_checkpoint).is_file():
        return
    raise FileNotFoundError(
        f'CalibratedSoftTeacher: teacher_checkpoint={teacher_checkpoint!r} does not exist. A '
        'training that has begun holds it: to resume or test that, add '
        '--cfg-options model.teacher_checkpoint=None.'
    )


def network_part(state_dict: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """The plain detector inside a checkpoint.

    Args:
        state_dict: Of a semi-supervised detector or of a plain one.
        network: ``'teacher'`` or ``'student'``.

    Returns:
        That network's weights without the prefix; everything of a plain detector.
    """
    prefix = f'{network}.'
    chosen = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    return chosen or dict(state_dict)


def is_class_statistic(key: str) -> bool:
    """Whether a key of a detector is no weight but a prototype, a similarity or a counter.

    Those of a box head may be missing: a plain head has none, and another one other ones.
    """
    return '.bbox_head.' in key and not key.endswith(('weight', 'bias'))


def classifier(state_dict: Mapping[str, Tensor], prefix: str) -> tuple[int, bool] | None:
    """Number of classes of a box head's classifier, and whether it is one of Seesaw loss.

    Args:
        state_dict: With the head's entries.
        prefix: Of their names, such as ``'roi_head.bbox_head.'``.

    Returns:
        None where there is no classifier.
    """
    weight = state_dict.get(f'{prefix}fc_cls.weight')
    if weight is None:
        return None
    # Seesaw loss has two outputs of objectness instead of one of background, and counts RoIs.
    seesaw = f'{prefix}loss_cls.cum_samples' in state_dict
    return len(weight) - (2 if seesaw else 1), seesaw


def classifier_text(kind: tuple[int, bool]) -> str:
    """``5 classes`` or ``5 SeesawLoss classes``."""
    return f'{kind[0]}{" SeesawLoss" if kind[1] else ""} classes'


def check_head(
    state_dict: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, source: str
) -> None:
    """Refuse weights of a box head of other classes or another loss, before anything is loaded.

    Args:
        state_dict: Of the checkpoint.
        own: Of the semi-supervised model.
        prefix: Of the model's names in ``state_dict``, where it is part of another one.
        source: What the message calls the checkpoint.

    Raises:
        ValueError: If a classifier has another number of classes, or one is of Seesaw loss and the
            other is not.
    """
    for key, value in state_dict.items():
        if not key.endswith('fc_cls.weight') or 'bbox_head' not in key:
            continue
        head = key.removesuffix('fc_cls.weight')
        theirs = classifier(state_dict, head)
        name = head.removeprefix(prefix)
        mine = classifier(own, name) or classifier(own, f'teacher.{name}')
        if theirs is not None and mine is not None and mine != theirs:
            raise ValueError(
                f'CalibratedSoftTeacher: {source}: {key} has {len(value)} outputs, '
                f'{classifier_text(theirs)}, but the model has {classifier_text(mine)}. Use a '
                'checkpoint of the same classes and loss; to start from a plain detector of '
                'others without its heads, give it as '
                "model.detector.init_cfg=dict(type='Pretrained', checkpoint=...)."
            )


def check_classifier_layer(checkpoint: Mapping[str, Any], detector: nn.Module, source: str) -> None:
    """Refuse a linear classifier's weights for a normalised one, and the other way round.

    Names and shapes are the same, but a normalised layer makes other scores of them. What the
    checkpoint has is known from the config in its ``meta``; without one nothing is checked.

    Args:
        checkpoint: With ``meta``.
        detector: That would get its weights; looked at if it is a two-stage one.
        source: What the message calls the checkpoint.

    Raises:
        ValueError: The layers differ.
    """
    text = (checkpoint.get('meta') or {}).get('cfg')
    heads = getattr(getattr(detector, 'roi_head', None), 'bbox_head', None)
    names = checkpoint.get('state_dict', checkpoint)
    if not isinstance(text, str) or heads is None:
        return
    if not any(name.endswith('fc_cls.weight') for name in names):
        return
    head = heads[-1] if isinstance(heads, nn.ModuleList) else heads
    mine = type(head.fc_cls).__name__
    theirs = _classifier_layer(text)
    if theirs is not None and 'NormedLinear' in (mine, theirs) and mine != theirs:
        raise ValueError(
            f'CalibratedSoftTeacher: {source}: its classifier is a {theirs} layer, that of the '
            f'model a {mine} one, which would make other scores of the same weights. Set '
            f'cls_predictor_cfg=dict(type={theirs!r}) in the bbox_head, or give a checkpoint that '
            f'was trained with {mine}.'
        )


def _classifier_layer(text: str) -> str | None:
    """``'NormedLinear'`` or ``'Linear'``, by a config as mmengine prints it; None of other text."""
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return None
    # `model` alone: variables of base files stand beside it.
    models = [
        statement.value
        for statement in statements
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == 'model'
    ]
    if not models:
        return None
    layers = [
        ast.unparse(node.value)
        for node in ast.walk(models[0])
        if isinstance(node, ast.keyword) and node.arg == 'cls_predictor_cfg'
    ]
    return 'NormedLinear' if any('NormedLinear' in layer for layer in layers) else 'Linear'


def load_into_teacher(teacher: nn.Module, own: Mapping[str, Tensor], source: str) -> None:
    """Load the plain detector inside a checkpoint file into a teacher.

    Args:
        teacher: The network.
        own: State of the semi-supervised model that it is part of.
        source: Path or address of the checkpoint.

    Raises:
        ValueError: It is of other classes, another loss or another kind of classifier, or lacks
            weights of the teacher.
    """
    checkpoint = CheckpointLoader.load_checkpoint(source, map_location='cpu')
    state = network_part(checkpoint.get('state_dict', checkpoint), 'teacher')
    check_head(state, own, '', source)
    check_classifier_layer(checkpoint, teacher, source)
    missing = teacher.load_state_dict(state, strict=False).missing_keys
    extra = [key for key in missing if is_class_statistic(key)]
    if len(missing) > len(extra):
        absent = sorted(set(missing) - set(extra))
        raise ValueError(
            f'CalibratedSoftTeacher: teacher_checkpoint={source!r} lacks {len(absent)} weights of '
            f'the teacher (first {absent[0]!r}), which would stay random. Give a checkpoint of '
            'this detector, plain or semi-supervised.'
        )
    logger = MMLogger.get_current_instance()
    logger.info(f'teacher loaded from {source}')
    if extra:
        logger.warning(
            f'{source} has no prototypes for the head of the config; the teacher gets its own from '
            'the student.'
        )
