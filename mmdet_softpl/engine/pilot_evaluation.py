"""What the trainings of a pilot say: AP, the return of unlabelled images, and sweeps.

Shape letters: **R** draws, **S** labelled sizes, **I** images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.device import get_device

from mmdet_softpl.config_file import type_name
from mmdet_softpl.datasets.annotation_checks import check_annotations, check_same_categories
from mmdet_softpl.datasets.annotation_file import load_annotation_file
from mmdet_softpl.engine.config_parts import annotation_path, labeller_of
from mmdet_softpl.engine.held_out import held_out_dataset, look_at_held_out
from mmdet_softpl.engine.load_teacher import load_teacher
from mmdet_softpl.engine.pilot_runs import PilotRun, checkpoint_of
from mmdet_softpl.engine.run_predictions import predict_or_read
from mmdet_softpl.evaluation.annotation_return import annotation_return
from mmdet_softpl.evaluation.label_replay import cross_calibrated, replay
from mmdet_softpl.evaluation.label_search import LabelSearch, every_second
from mmdet_softpl.evaluation.labelling_proxy import (
    f_beta,
    group_statistics,
    labelling_proxy,
    threshold_curves,
    total,
)
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.evaluation.resampled_ap import draw_aps
from mmdet_softpl.evaluation.sensitivity import sensitivity
from mmdet_softpl.file_keys import file_key, images_key, seen_key
from mmdet_softpl.functional import GROUP_NAMES
from mmdet_softpl.models import CalibratedSoftTeacher
from mmdet_softpl.progress import Progress

TITLES = {'segm_AP': 'mask AP', 'bbox_AP': 'box AP', 'segm_APr': 'mask APr', 'bbox_APr': 'box APr'}
MIN_DRAWS = 20
# Of them two halves are made.
MIN_IMAGES = 4


def held_out_metric(
    cfg: Config, ann_file: str | None, images: str | None
) -> tuple[BaseDataset, dict, LongTailMetric]:
    """The held-out images, their config and what they are evaluated with.

    Raises:
        ValueError: They are fewer than ``MIN_IMAGES``, or the model is of another kind.
        AnnotationError: Their json cannot be used, has objects without masks, or other categories
            than the labelled one.
        FileNotFoundError: An image is missing.
    """
    if type_name(cfg.model.type) != 'CalibratedSoftTeacher':
        raise ValueError(
            f'{cfg.filename}: model.type is {cfg.model.type!r}; a pilot needs a config with '
            'CalibratedSoftTeacher.'
        )
    dataset, leaf = held_out_dataset(cfg, ann_file, images)
    path, labelled = annotation_path(leaf), labeller_of(cfg)[1]['labeled_ann_file']
    classes = dataset.metainfo.get('classes') or None
    check_same_categories(
        check_annotations(labelled, classes=classes), check_annotations(path, classes=classes)
    )
    masks = cfg.model.detector.roi_head.get('mask_head') is not None
    metric = LongTailMetric(
        path,
        ['bbox', 'segm'] if masks else 'bbox',
        labeled_ann_file=labelled,
        calibration=False,
    )
    metric.dataset_meta = dataset.metainfo
    if len(dataset) < MIN_IMAGES:
        raise ValueError(
            f'{path}: {len(dataset)} held-out images; at least {MIN_IMAGES} are needed, better '
            'some hundred.'
        )
    # Stops at an image that is missing.
    images_key(dataset)
    return dataset, leaf, metric


def evaluate_runs(
    cfg: Config,
    runs: Sequence[PilotRun],
    out: Path,
    *,
    ann_file: str | None,
    images: str | None,
    bootstrap: int,
    batch_size: int,
) -> tuple[list[dict[str, Any]], str]:
    """AP of the teacher of every run on the held-out images, and on draws of them.

    Frequency groups are those of the whole labelled json, the same for all shares.

    Returns:
        A record a run: ``name``, ``kind``, ``seed``, ``images``, ``labelled_images``,
        ``labelled_instances``, ``checkpoint``, ``metrics`` and ``draws`` (metric to (R,)); and a
        sentence about where the uncertainty comes from.
    """
    dataset, leaf, metric = held_out_metric(cfg, ann_file, images)
    path = annotation_path(leaf)
    image_files = images_key(dataset)
    records: list[dict[str, Any]] = []
    predictions = []
    for run in runs:
        checkpoint = checkpoint_of(run)

        def detector(run: PilotRun = run, checkpoint: Path = checkpoint) -> CalibratedSoftTeacher:
            return load_teacher(run.cfg, str(checkpoint))[0].to(get_device())

        found = predict_or_read(
            detector,
            dataset,
            metric,
            out / 'predictions' / f'{run.name}.json',
            dict(
                checkpoint=file_key(checkpoint),
                **seen_key(run.cfg, path, image_files, leaf.get('pipeline')),
            ),
            batch_size=batch_size,
            progress=Progress(f'evaluating {run.name}'),
        )
        predictions.append(found)
        records.append(
            dict(
                name=run.name,
                kind=run.kind,
                seed=run.seed,
                images=run.images,
                labelled_images=run.labelled_images,
                labelled_instances=run.labelled_instances,
                checkpoint=str(checkpoint),
                metrics={k: float(v) for k, v in metric.compute_metrics(found).items()},
            )
        )
    draws = draw_aps(
        metric,
        load_annotation_file(path),
        predictions,
        bootstrap,
        progress=Progress('drawing images'),
    )
    for record, drawn in zip(records, draws, strict=True):
        record['draws'] = drawn
    seeds = max(Counter((r['kind'], r['images']) for r in records).values())
    return records, _uncertainty(bootstrap, len(dataset), seeds)


def _uncertainty(bootstrap: int, num_images: int, seeds: int) -> str:
    """Where the intervals come from, in a sentence or two."""
    if not bootstrap:
        return 'No uncertainty: --bootstrap is 0.'
    source = f'Intervals come from {bootstrap} draws of the {num_images} held-out images'
    if seeds > 1:
        return (
            f'{source} and of the {seeds} trainings of a kind and share (split and seed), with '
            "Student's t: with two or three of them expect little to be certain."
        )
    return (
        f'{source}. One training of each kind and share: how another split or training would '
        'differ is not in them.'
    )


def returns_of(
    records: Sequence[dict[str, Any]], metrics: Sequence[str], seconds: float
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]], str]:
    """The curve points and the return at every share with unlabelled images.

    Args:
        records: As :func:`evaluate_runs` makes them.
        metrics: Endings such as ``'AP'``; of masks where there are some.
        seconds: To annotate an instance.

    Returns:
        Points for :func:`.draw_returns`; metric to returns, each with ``metric``, ``title``,
        ``ap`` and ``draws``; and why there are none (empty where there are).
    """
    kind = 'segm' if 'segm_AP' in records[0]['metrics'] else 'bbox'
    names = [f'{kind}_{ending}' for ending in metrics]
    names = [n for n in names if all(r['metrics'].get(n, -1) >= 0 for r in records)]
    points, draws = _curve_points(records, names)
    returns = _returns(points, draws, names, seconds)
    missing = (
        ''
        if returns
        else (
            'No return: the labelled-only curve needs trainings at two labelled sizes or more, and '
            'at least one training with unlabelled images to compare with it.'
        )
    )
    return points, returns, missing


def _curve_points(
    records: Sequence[dict[str, Any]], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    """One point for each kind and number of images, and of each the draws of its mean by metric.

    Images without an object count, since two draws of a share differ in how many they got.
    """
    points, draws = [], []
    rng = np.random.default_rng(0)
    for kind, size in sorted({(r['kind'], r['images']) for r in records}):
        own = [r for r in records if (r['kind'], r['images']) == (kind, size)]
        drawn = {n: _mean_draws([_known(r['draws'].get(n)) for r in own], rng) for n in names}
        points.append(
            dict(
                kind=kind,
                labelled_images=round(float(np.mean([r['labelled_images'] for r in own]))),
                labelled_instances=round(float(np.mean([r['labelled_instances'] for r in own]))),
                values={n: float(np.mean([r['metrics'][n] for r in own])) for n in names},
                intervals={
                    n: tuple(np.quantile(d, [0.025, 0.975]).tolist())
                    if len(d) >= MIN_DRAWS
                    else None
                    for n, d in drawn.items()
                },
            )
        )
        draws.append(drawn)
    return points, draws


def _returns(
    points: Sequence[dict[str, Any]],
    draws: Sequence[dict[str, np.ndarray]],
    names: Sequence[str],
    seconds: float,
) -> dict[str, list[dict[str, Any]]]:
    """Metric to what each training with unlabelled images is worth; empty without a curve."""
    in_order = sorted(range(len(points)), key=lambda i: points[i]['labelled_instances'])
    semi = [i for i in in_order if points[i]['kind'] == 'semi']
    # Two splits of one size can have as many instances: the first one stands for both.
    curve: dict[int, int] = {}
    for i in in_order:
        if points[i]['kind'] == 'labelled':
            curve.setdefault(points[i]['labelled_instances'], i)
    if len(curve) < 2:
        return {}
    labels, on_curve = np.array(list(curve), dtype=float), list(curve.values())
    returns: dict[str, list[dict[str, Any]]] = {}
    for name in names if semi else ():
        returns[name] = []
        for i in semi:
            sides = [draws[j][name] for j in (*on_curve, i)]
            count = min(len(side) for side in sides)
            count = count if count >= MIN_DRAWS else 0
            value = points[i]['values'][name]
            found = annotation_return(
                labels,
                np.array([points[j]['values'][name] for j in on_curve]),
                points[i]['labelled_instances'],
                value,
                curve_draws=np.stack([side[:count] for side in sides[:-1]], axis=1),
                ap_draws=sides[-1][:count],
                seconds=seconds,
            )
            extra = dict(metric=name, title=TITLES[name], ap=value, draws=count)
            returns[name].append(dict(found, **extra))
    return returns


def _known(draws: np.ndarray | None) -> np.ndarray:
    """(R,); a draw without an object of the group (-1) is nan."""
    if draws is None:
        return np.zeros(0)
    return np.where(draws < 0, np.nan, draws)


def _mean_draws(runs: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """(R,) means over runs in every draw of the images, with what other runs would change.

    The latter is drawn from Student's distribution: two or three runs say little of how far a
    fourth may lie, and drawing from these alone would call that certain. Draw r of every point is
    the same draw of images; unknown values take the mean of the known.
    """
    drawn = np.stack(runs)
    if not drawn.shape[1] or np.isnan(drawn).all():
        return np.zeros(0)
    drawn = np.where(np.isnan(drawn), np.nanmean(drawn), drawn)
    means, n = drawn.mean(axis=0), len(runs)
    if n < 2:
        return means
    deviation = drawn.mean(axis=1).std(ddof=1)
    return means + deviation / np.sqrt(n) * rng.standard_t(n - 1, size=len(means))


def sweep(
    run: PilotRun,
    out: Path,
    *,
    ann_file: str | None,
    images: str | None,
    beta: float,
    num_thresholds: int,
    batch_size: int,
) -> dict[str, Any]:
    """Thresholds, reliability and sensitivity of the labels of one run's teacher.

    Returns:
        ``thresholds`` (curves with ``best_threshold``), ``own`` (the proxy of the config's own
        settings), ``reliability`` (ECE of each group ``before`` and ``after``),
        ``reliability_counts`` ((3, C, B) before, after, and the groups), ``sensitivity``, and
        what was looked at.
    """
    held_out = look_at_held_out(
        run.cfg,
        str(checkpoint_of(run)),
        out,
        ann_file=ann_file,
        images=images,
        batch_size=batch_size,
    )
    search = LabelSearch(
        held_out.dump,
        held_out.statistics,
        held_out.detector.labeling_cfg,
        object_weights=held_out.object_weights,
        beta=beta,
    )
    settings = held_out.settings
    found = replay(
        held_out.dump,
        settings,
        held_out.statistics,
        held_out.detector.labeling_cfg,
        object_weights=held_out.object_weights,
    )
    curves = threshold_curves(found, torch.linspace(0, 0.95, num_thresholds))
    for curve in curves.values():
        curve['best_threshold'] = _best_threshold(curve, beta)
    calibrated = cross_calibrated(found, settings, every_second(len(held_out.dump.images)))
    confidences = found.confidences(calibrated)
    of_scores = group_statistics(found, found.scores, found.scores)
    before, after = labelling_proxy(*total(of_scores), beta=beta), search.everywhere(settings)

    def errors(values: dict[str, float]) -> dict[str, float]:
        return {n: values[f'ece_{n}'] for n in GROUP_NAMES if f'ece_{n}' in values}

    return dict(
        held_out=held_out.ann_file,
        held_out_images=len(held_out.dump.images),
        checkpoint=str(checkpoint_of(run)),
        warnings=list(held_out.warnings),
        thresholds=curves,
        own=after,
        reliability=dict(before=errors(before), after=errors(after)),
        reliability_counts=(
            found.reliability().tolist(),
            found.reliability(confidences).tolist(),
            found.state.groups.tolist(),
        ),
        sensitivity=sensitivity(
            search.everywhere, settings, held_out.dump.temperatures, Progress('varying settings')
        ),
    )


def _best_threshold(curve: dict[str, Any], beta: float) -> float | None:
    """The threshold of the highest F-beta; None where nothing is ever right."""
    scores = [
        0.0 if p != p else f_beta(p, r, beta)
        for p, r in zip(curve['precision'], curve['recall'], strict=True)
    ]
    best = int(np.argmax(scores))
    return curve['threshold'][best] if scores[best] > 0 else None
