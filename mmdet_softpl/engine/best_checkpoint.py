"""Whether the validation gives the figure that the best checkpoint is chosen by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.registry import METRICS
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmdet_softpl.config_file import type_name
from mmdet_softpl.evaluation.longtail_metric import LongTailMetric


@dataclass(frozen=True)
class MetricNames:
    """What the figures of a metric are called.

    Attributes:
        prefix: in front of them; empty for none.
        iou_types: ``'bbox'``, ``'segm'`` of a ``LongTailMetric``; None for others, whose figures
            nobody knows before they come.
    """

    prefix: str
    iou_types: tuple[str, ...] | None

    def figures(self) -> tuple[str, ...]:
        """How they begin; with a known metric, those that a training is judged by."""
        beginning = f'{self.prefix}/' if self.prefix else ''
        if self.iou_types is None:
            return (f'{beginning}...',)
        names = ('AP', 'AP50', 'AP75', 'APr', 'APc', 'APf')
        return tuple(f'{beginning}{kind}_{name}' for kind in self.iou_types for name in names)

    def gives(self, key: str) -> bool:
        """Whether a figure of that name may be among them."""
        if self.iou_types is None:
            return key.startswith(f'{self.prefix}/' if self.prefix else '')
        calibration = (f'{self.prefix}/ece', f'{self.prefix}/cc_ece')
        return key.removesuffix('_fixed') in self.figures() or key.startswith(calibration)


def check_best_checkpoint(runner: Runner) -> None:
    """Check ``save_best`` of a training's config; mmengine looks at the first validation.

    Args:
        runner: About to train.

    Raises:
        ValueError: No metric of the validation gives that figure, or nothing says whether more of
            it is better.
    """
    fault = configured_fault(runner.cfg)
    if fault is not None:
        raise ValueError(fault)


def configured_fault(cfg: Mapping[str, Any]) -> str | None:
    """What is wrong with ``save_best`` of a config, found without building anything.

    Args:
        cfg: A config. Metrics that are not registered, and evaluators of several data sets, whose
            figures have names of their own, are left alone.

    Returns:
        A sentence, or None.
    """
    hooks = [(cfg.get('default_hooks') or {}).get('checkpoint') or {}]
    hooks += [
        hook
        for hook in cfg.get('custom_hooks') or ()
        if isinstance(hook, Mapping) and type_name(hook.get('type')) == 'CheckpointHook'
    ]
    hooks = [hook for hook in hooks if hook.get('save_best')]
    given_keys = [hook['save_best'] for hook in hooks]
    keys = [k for each in given_keys for k in ([each] if isinstance(each, str) else each)]
    loop = cfg.get('val_cfg') or {}
    evaluator = cfg.get('val_evaluator') or ()
    given = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)
    if not keys or not given or any(m.get('metrics') is not None for m in given):
        return None
    metrics = list(_configured(given))
    if len(metrics) < len(given):
        return None
    semi = type_name(loop.get('type')) == 'TeacherStudentValLoop'
    fault = absent_figure(keys, metrics, semi)
    if fault is not None:
        return fault
    # What mmengine takes for 'auto'.
    first = f'{"teacher/" if semi else ""}{metrics[0].figures()[0]}'
    known = metrics[0].iou_types is not None
    for hook in hooks:
        fault = _unknown_rule(hook, first if known else None)
        if fault is not None:
            return fault
    return None


def _unknown_rule(hook: Mapping[str, Any], first: str | None) -> str | None:
    """A sentence about a figure of which mmengine cannot tell whether more of it is better."""
    key = hook['save_best']
    figure = first if key in ('auto', ['auto']) else key
    if figure is None:
        return None
    rules = {name: hook.get(name) for name in ('rule', 'greater_keys', 'less_keys')}
    try:
        CheckpointHook(save_best=figure, **rules)
    except ValueError:
        return (
            f'CheckpointHook: save_best={key!r} without a rule, and mmengine does not know whether '
            f"more of {figure!r} is better; add rule='greater' (or 'less' for an error)."
        )
    # How mmengine refuses an unknown rule, and as many rules as there are no figures.
    except (AssertionError, KeyError) as error:
        return (
            f'CheckpointHook: {error.args[0]}; correct save_best={key!r}, rule={rules["rule"]!r}.'
        )
    return None


def _configured(given: Sequence[Mapping[str, Any]]) -> Iterator[MetricNames]:
    for metric in given:
        kind = metric.get('type')
        cls = kind if isinstance(kind, type) else METRICS.get(str(kind))
        if cls is None:
            continue
        prefix = metric.get('prefix') or getattr(cls, 'default_prefix', None) or ''
        kinds = metric.get('metric', ('bbox', 'segm'))
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
        yield MetricNames(prefix, kinds if issubclass(cls, LongTailMetric) else None)


def absent_figure(keys: Sequence[str], metrics: Sequence[MetricNames], semi: bool) -> str | None:
    """A sentence about the first figure that no metric gives, or None.

    Args:
        keys: Of ``save_best``.
        metrics: Of the validation.
        semi: Whether teacher and student are evaluated, each under its name.
    """
    networks = ('teacher/', 'student/') if semi else ('',)
    for key in keys:
        if key == 'auto' or any(
            key.startswith(network) and metric.gives(key.removeprefix(network))
            for network in networks
            for metric in metrics
        ):
            continue
        known = ', '.join(f'{networks[0]}{name}' for m in metrics for name in m.figures())
        return (
            f'CheckpointHook: save_best={key!r}, but val_evaluator gives {known}'
            f'{" (and student/ likewise)" if semi else ""}; give one of its figures, or '
            'save_best=None.'
        )
    return None
