"""What every validation found, class by class, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_softpl.engine.burn_in_mean_teacher_hook import BurnInMeanTeacherHook
from mmdet_softpl.engine.runner_model import model_of
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric
from mmdet_softpl.functional import GROUP_NAMES
from mmdet_softpl.registry import HOOKS
from mmdet_softpl.run_records import VALIDATIONS_FILE, append_record, metrics_by_network


@MMDET_HOOKS.register_module()
@HOOKS.register_module()
class ValidationRecordHook(Hook):
    """Writes each validation of a training to ``WORK_DIR/TIMESTAMP/validations.jsonl``.

    mmengine's log has the metrics alone, without the iteration in its json. Here are also the AP
    of every class and the reliability of every frequency group, where ``LongTailMetric`` is among
    the metrics. About 20 KB a validation at 1,203 classes.
    """

    def __init__(self) -> None:
        self._start_iter: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Note where the training goes on."""
        self._start_iter = runner.iter

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget evaluations that another loop left behind."""
        metric = _longtail_metric(runner)
        if metric is not None:
            metric.evaluations.clear()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Append the record; nothing outside a training."""
        if self._start_iter is None or not metrics or not is_main_process():
            return
        path = Path(runner.log_dir) / VALIDATIONS_FILE
        metric = _longtail_metric(runner)
        if not path.is_file():
            groups = None if metric is None or metric.groups is None else metric.groups.tolist()
            meta = getattr(metric, 'dataset_meta', None) or {}
            append_record(
                path,
                dict(
                    start_iter=self._start_iter,
                    classes=list(meta.get('classes', ())),
                    groups=groups,
                    supervised_iters=next(
                        (
                            hook.supervised_iters
                            for hook in runner.hooks
                            if isinstance(hook, BurnInMeanTeacherHook)
                        ),
                        0,
                    ),
                ),
            )
        parts: dict[str, dict[str, Any]] = {}
        for name, own in metrics_by_network(metrics).items():
            parts[name] = dict(metrics={key: float(value) for key, value in own.items()})
        if not parts:
            parts[_predicting_part(runner)] = dict(
                metrics={key: float(value) for key, value in metrics.items()}
            )
        if metric is not None and len(metric.evaluations) == len(parts):
            for part, evaluation in zip(parts.values(), metric.evaluations, strict=True):
                part.update(_plain(evaluation, metric.groups))
        append_record(path, dict(iter=runner.iter, parts=parts))


def _longtail_metric(runner: Runner) -> LongTailMetric | None:
    for metric in runner.val_loop.evaluator.metrics:
        if isinstance(metric, LongTailMetric):
            return metric
    return None


def _predicting_part(runner: Runner) -> str:
    """Which network a plain validation loop asked."""
    model = model_of(runner)
    cfg = getattr(model, 'semi_test_cfg', None) or {}
    return cfg.get('predict_on', 'model')


def _plain(evaluation: dict[str, Any], groups: torch.Tensor | None) -> dict[str, Any]:
    """An entry of ``LongTailMetric.evaluations`` as lists, reliability summed within groups."""
    record: dict[str, Any] = dict(
        class_AP={k: [round(float(v), 5) for v in ap] for k, ap in evaluation['class_AP'].items()}
    )
    reliability = evaluation['reliability']
    if reliability is not None and groups is not None:
        sums = [reliability[:, groups == g].sum(1) for g in range(len(GROUP_NAMES))]
        record['reliability'] = [
            [[round(float(x), 4) for x in row] for row in rows] for rows in torch.stack(sums, dim=1)
        ]
    return record
