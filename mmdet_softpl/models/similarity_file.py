"""Class similarity from a file.

Shape legend: C foreground classes, D embedding size, k kept neighbours of a class.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_softpl.functional import (
    ClassSimilarity,
    similarity_from_matrix,
    similarity_from_prototypes,
)
from mmdet_softpl.messages import some_of


def read_similarity(
    path: str | None,
    num_classes: int,
    topk: int,
    temperature: float,
    argument: str = 'SmoothedCEHead: similarity_file',
) -> ClassSimilarity:
    """Class similarity from a file of embeddings (C, D) or similarities (C, C).

    A square array is one of similarities where it is symmetric. Otherwise it could be either, and
    its name in an ``.npz`` file has to say: ``embeddings`` or ``similarities``.

    Args:
        path: Of the file.
        num_classes: C.
        topk: Neighbours of a class to keep.
        temperature: Of the softmax over similarities.
        argument: What messages call ``path``.

    Raises:
        ValueError: Without a path, for an unknown kind of file, a shape that does not fit
            ``num_classes``, or an array that could be either.
        FileNotFoundError: If there is no such file.
    """
    if not path:
        raise ValueError(
            f'{argument}={path!r} is no path; give a .npy, .npz or .pt file with an array '
            '(num_classes, D) of embeddings or (num_classes, num_classes) of similarities, as '
            "smoothing_mode='file' needs it."
        )
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f'{argument}={path!r} does not exist.')
    content = _content(file, f'{argument}={path!r}')
    name = ''
    if file.suffix == '.npz' and isinstance(content, dict):
        if {'indices', 'weights'} <= content.keys():
            return _sparse_similarity(f'{argument}={path!r}', content, num_classes, topk)
        name, content = _only_array(f'{argument}={path!r}', content)
    array = torch.from_numpy(content) if isinstance(content, np.ndarray) else content
    if not isinstance(array, Tensor):
        raise ValueError(
            f'{argument}={path!r} holds a {type(array).__name__}; save the tensor itself.'
        )
    if array.dim() != 2 or array.shape[0] != num_classes:
        raise ValueError(
            f'{argument}={path!r} holds an array of shape '
            f'{tuple(array.shape)}, but num_classes={num_classes} asks for ({num_classes}, D) or '
            f'({num_classes}, {num_classes}).'
        )
    array = array.float()
    finite = torch.isfinite(array).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f'{argument}={path!r} has inf or nan in row '
            f'{int((~finite).nonzero()[0])}; write a finite vector for every class.'
        )
    if _holds_similarities(f'{argument}={path!r}', name, array):
        return similarity_from_matrix(array, topk, temperature)
    return similarity_from_prototypes(
        F.normalize(array, dim=1), torch.ones(num_classes), topk, temperature
    )


# What an archive can call its array.
_NAMES = ('embeddings', 'similarities')
_UNREADABLE = (
    ValueError,
    EOFError,
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def _content(file: Path, subject: str) -> object:
    """What numpy or torch reads from a file."""
    try:
        if file.suffix == '.npz':
            with np.load(file) as archive:
                arrays = {name: archive[name] for name in archive.files}
            if not arrays:
                raise ValueError('an empty archive')
            return arrays
        if file.suffix == '.npy':
            return np.load(file)
        if file.suffix == '.pt':
            return torch.load(file, map_location='cpu', weights_only=True)
    # Their own messages name no file, and advise to switch a safeguard off.
    except _UNREADABLE as error:
        raise ValueError(
            f'{subject} cannot be read; save an array of numbers with numpy.save (.npy), '
            'numpy.savez (.npz) or torch.save (.pt).'
        ) from error
    raise ValueError(f'{subject} ends in {file.suffix!r}; known are .npy, .npz and .pt.')


def _only_array(subject: str, archive: Mapping[str, np.ndarray]) -> tuple[str, np.ndarray]:
    """Name and content of the array that an archive is about."""
    known = [name for name in _NAMES if name in archive]
    names = known or list(archive)
    if len(names) > 1:
        raise ValueError(
            f'{subject} holds several arrays ({some_of(names, 8, ", ")}); save one of them alone, '
            'as `embeddings` or `similarities`.'
        )
    return names[0], archive[names[0]]


def _holds_similarities(subject: str, name: str, array: Tensor) -> bool:
    """Whether an array (C, D) is one of similarities."""
    if array.shape[0] != array.shape[1]:
        if name == 'similarities':
            raise ValueError(
                f'{subject} holds `similarities` of shape {tuple(array.shape)}; a row and a column '
                'for each class are needed.'
            )
        return False
    if name in _NAMES:
        return name == 'similarities'
    if not torch.allclose(array, array.T, rtol=1e-3, atol=1e-5):
        raise ValueError(
            f'{subject} holds a square array that is not symmetric, so rows may be embeddings as '
            'well as similarities; say which: numpy.savez(FILE, embeddings=array) or '
            'numpy.savez(FILE, similarities=array).'
        )
    return True


def _sparse_similarity(
    subject: str, archive: Mapping[str, np.ndarray], num_classes: int, topk: int
) -> ClassSimilarity:
    """A ``ClassSimilarity`` from its two arrays; of more than topk columns the largest stay.

    Raises:
        ValueError: the arrays are not (num_classes, k) each, name other classes, or have rows
            that sum neither to 1 nor to 0.
    """
    indices = torch.from_numpy(archive['indices']).long()
    weights = torch.from_numpy(archive['weights']).float()
    fits = indices.dim() == 2 and indices.shape == weights.shape and len(indices) == num_classes
    if not fits:
        raise ValueError(
            f'{subject} holds indices of shape '
            f'{tuple(indices.shape)} and weights of shape {tuple(weights.shape)}, but num_classes='
            f'{num_classes} asks for ({num_classes}, k) each.'
        )
    sums = weights.sum(1)
    summed = bool((((sums - 1).abs() < 1e-3) | (sums == 0)).all())
    inside = bool(((indices >= 0) & (indices < num_classes)).all())
    if not (summed and inside and bool((weights >= 0).all())):
        raise ValueError(
            f'{subject} needs indices in [0, {num_classes}) and '
            'weights >= 0 whose rows sum to 1 (or 0: uniform).'
        )
    if weights.shape[1] > topk:
        weights, order = weights.topk(topk, dim=1)
        indices = indices.gather(1, order)
        weights = F.normalize(weights, p=1, dim=1)
    return ClassSimilarity(indices, weights)
