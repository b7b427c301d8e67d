"""The generated data set of long-tail shapes, in LVIS v1 format.

``ROOT/{train,unlabeled,val,...}/*.png``, ``ROOT/annotations/{train,val,unlabeled,...}.json``,
``ROOT/annotations/hidden_unlabeled.json`` (the labels of the unlabelled images, for audits),
``ROOT/annotations/classes.txt`` (class names in label order, for ``metainfo=dict(classes=...)``)
and ``ROOT/shapes.json`` (the parameters, written last).
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_utils
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..atomic_json import write_json
from .class_statistics import frequency_letter
from .shape_classes import ShapeClass, shape_classes
from .shape_plan import ShapesConfig, plan_splits, random_stream
from .shape_scenes import render_scene

# Raise it whenever the same parameters give other pictures or files.
FORMAT_VERSION = 1

CHUNK_SIZE = 50
_PARTS = '.parts'


def generate_longtail_shapes(
    root: str | os.PathLike,
    config: ShapesConfig,
    progress: bool = True,
    workers: int | None = None,
) -> dict[str, Path]:
    """Make the data set, unless it is there.

    A folder that holds the same parameters is left as it is; other parameters replace the
    data. Interrupted work goes on where it stopped. Nothing but what an earlier run wrote is
    ever removed.

    Args:
        root: folder of the data set.
        config: the parameters.
        progress: show a bar with the time left.
        workers: processes; by default one a core, 1 works in this process.

    Returns:
        Paths by name: every annotation file (``train``, ``unlabeled``, ``hidden_unlabeled``,
        ``val``, ...), ``classes``, ``root`` and ``shapes``.

    Raises:
        FileExistsError: ``root`` holds folders of these names that are not from here.
        RuntimeError: a class found no room in any labelled image.
    """
    root = Path(root)
    marker, parts = root / 'shapes.json', root / _PARTS
    parameters = json.loads(json.dumps({'version': FORMAT_VERSION, **asdict(config)}))
    paths = {name: root / 'annotations' / f'{name}.json' for name in config.splits}
    paths['hidden_unlabeled'] = root / 'annotations' / 'hidden_unlabeled.json'
    paths.update(classes=root / 'annotations' / 'classes.txt', root=root, shapes=marker)
    if _read_json(marker) == parameters and _is_complete(root, config, paths):
        return paths

    _make_room(root, config, parameters)
    for name in config.splits:
        (root / name).mkdir(exist_ok=True)
    plans = plan_splits(config)
    tasks = [
        (str(root), config, name, start, plan[start : start + CHUNK_SIZE])
        for name, plan in plans.items()
        for start in range(0, len(plan), CHUNK_SIZE)
        if not _part_file(parts, name, start).exists()
    ]
    _run(tasks, sum(config.splits.values()), progress, workers)
    _write_annotations(root, config, paths)
    write_json(marker, parameters)
    shutil.rmtree(parts)
    return paths


def _render_chunk(
    root: str, config: ShapesConfig, name: str, start: int, plan: list[list[int]]
) -> int:
    """Render and store the images from ``start`` on and, last, their annotations."""
    classes = shape_classes(config.num_classes)
    records = []
    for index, labels in enumerate(plan, start):
        rng = np.random.default_rng(random_stream(config, name, 'image', index))
        scene = render_scene(classes, labels, config.image_size, rng)
        file_name = f'{name}_{index:06d}.png'
        # Run-length strategy: noise does not compress better with the slower ones.
        flags = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        if not cv2.imwrite(os.path.join(root, name, file_name), scene.image, flags):
            raise OSError(f'{os.path.join(root, name, file_name)}: cannot be written (disk full?)')
        runs = mask_utils.encode(scene.masks)
        objects = [
            {
                'category_id': label + 1,
                'segmentation': {'size': run['size'], 'counts': run['counts'].decode()},
                'bbox': mask_utils.toBbox(run).tolist(),
                'area': int(mask_utils.area(run)),
            }
            for label, run in zip(scene.labels, runs, strict=True)
        ]
        records.append({'file_name': file_name, 'objects': objects})
    write_json(_part_file(Path(root) / _PARTS, name, start), records)
    return len(plan)


def _run(tasks: list[tuple], num_images: int, progress: bool, workers: int | None) -> None:
    """Render all chunks."""
    columns = (TextColumn('long-tail shapes'), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), disable=not progress, auto_refresh=False)
    left = sum(len(task[-1]) for task in tasks)
    with bar:
        job = bar.add_task('', total=num_images, completed=num_images - left)
        if workers == 1 or len(tasks) <= 1:
            for task in tasks:
                bar.update(job, advance=_render_chunk(*task), refresh=True)
            return
        # Not fork: a child of a process that has computed with torch can hang on its threads.
        pool: Executor = ProcessPoolExecutor(
            workers or len(_cores()),
            mp_context=multiprocessing.get_context('spawn'),
            initializer=_start_worker,
        )
        futures: list[Future[int]] = []
        try:
            futures += [pool.submit(_render_chunk, *task) for task in tasks]
            for future in as_completed(futures):
                bar.update(job, advance=future.result(), refresh=True)
        finally:
            with _no_second_interrupt():
                pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _no_second_interrupt() -> Iterator[None]:
    """`timeout -s INT` signals the child and then its group: a broken shutdown would hang."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cores() -> list[int]:
    if hasattr(os, 'sched_getaffinity'):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _start_worker() -> None:
    # Ctrl-C reaches the whole group; the parent stops the work, workers finish their chunk.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)


def _write_annotations(root: Path, config: ShapesConfig, paths: dict[str, Path]) -> None:
    """Join the parts of each split into its LVIS file."""
    (root / 'annotations').mkdir(exist_ok=True)
    records = {
        name: [
            record
            for start in range(0, count, CHUNK_SIZE)
            for record in _read_json(_part_file(root / _PARTS, name, start))
        ]
        for name, count in config.splits.items()
    }
    categories = _categories(shape_classes(config.num_classes), records['train'])
    missing = [category['name'] for category in categories if not category['image_count']]
    if missing:
        raise RuntimeError(
            f'long-tail shapes: no labelled image has room for {missing}. Raise num_train '
            f'({config.num_train}) or image_size ({config.image_size}).'
        )
    paths['classes'].write_text('\n'.join(config.classes) + '\n', encoding='utf-8')
    first_id = 1
    for name, images in records.items():
        data = _lvis(images, categories, config, first_id)
        first_id += len(images)
        if name == 'unlabeled':
            write_json(paths['hidden_unlabeled'], data)
            bare = [
                {key: image[key] for key in ('id', 'file_name', 'width', 'height')}
                for image in data['images']
            ]
            data = {**data, 'images': bare, 'annotations': []}
        write_json(paths[name], data)


def _categories(classes: list[ShapeClass], train: list[dict]) -> list[dict[str, Any]]:
    instances = Counter(o['category_id'] for record in train for o in record['objects'])
    images = Counter(
        category for record in train for category in {o['category_id'] for o in record['objects']}
    )
    return [
        {
            'id': i,
            'name': shape.name,
            'supercategory': shape.outline,
            'frequency': frequency_letter(images[i]),
            'image_count': images[i],
            'instance_count': instances[i],
        }
        for i, shape in enumerate(classes, 1)
    ]


def _lvis(
    records: list[dict], categories: list[dict], config: ShapesConfig, first_id: int
) -> dict[str, Any]:
    """LVIS v1 dict; every image is labelled exhaustively, so all absent classes are negative."""
    everything = {category['id'] for category in categories}
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, record in enumerate(records, first_id):
        present = {o['category_id'] for o in record['objects']}
        images.append(
            {
                'id': image_id,
                'file_name': record['file_name'],
                'width': config.image_size,
                'height': config.image_size,
                'neg_category_ids': sorted(everything - present),
                'not_exhaustive_category_ids': [],
            }
        )
        for thing in record['objects']:
            annotations.append({'id': len(annotations) + 1, 'image_id': image_id, **thing})
    return {
        'info': {'description': 'mmdet_softpl long-tail shapes', 'version': str(FORMAT_VERSION)},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def _make_room(root: Path, config: ShapesConfig, parameters: dict[str, Any]) -> None:
    """Keep a part of the same parameters, clear data of others, refuse what is not ours."""
    marker, begun = root / 'shapes.json', root / _PARTS / 'shapes.json'
    old = _read_json(begun) or _read_json(marker)
    own: list[str] = []
    if old is not None:
        extra = [name for name, _ in old.get('extra_splits', ())]
        own = ['train', 'unlabeled', 'val', *extra]
    names = [*config.splits, 'annotations']
    mine = {*own, *(['annotations'] if own else [])}
    foreign = [str(root / name) for name in names if name not in mine and (root / name).exists()]
    if foreign:
        raise FileExistsError(
            f'long-tail shapes: {", ".join(foreign)} exist, but {marker} does not name them, so '
            'they are not from here. Choose another folder, or remove them.'
        )
    if old is not None and _read_json(begun) != parameters:
        # The marker goes first: an interrupted removal must not look like a whole data set.
        marker.unlink(missing_ok=True)
        _remove_written(root, own)
        shutil.rmtree(root / _PARTS, ignore_errors=True)
    begun.parent.mkdir(parents=True, exist_ok=True)
    write_json(begun, parameters)


def _remove_written(root: Path, splits: list[str]) -> None:
    """Remove the files of a data set by their names; what others put beside them stays."""
    for name in splits:
        for path in (root / name).glob(f'{name}_*.png'):
            if path.stem.removeprefix(f'{name}_').isdigit():
                path.unlink()
    annotations = root / 'annotations'
    for name in (*splits, 'hidden_unlabeled'):
        (annotations / f'{name}.json').unlink(missing_ok=True)
    (annotations / 'classes.txt').unlink(missing_ok=True)
    for name in (*splits, 'annotations'):
        with contextlib.suppress(OSError):  # Not empty, or never made.
            (root / name).rmdir()


def _is_complete(root: Path, config: ShapesConfig, paths: dict[str, Path]) -> bool:
    return all(path.exists() for path in paths.values()) and all(
        (root / name).is_dir() and len(os.listdir(root / name)) >= count
        for name, count in config.splits.items()
    )


def _part_file(parts: Path, name: str, start: int) -> Path:
    return parts / f'{name}-{start:07d}.json'


def _read_json(path: Path) -> Any:
    """The content, or None when the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
