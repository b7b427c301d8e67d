"""Compare the stand-in's ops with mmcv's compiled ones, in one process, interleaved.

Needs a compiled mmcv: ``PYTHONPATH=. .venv-compiled/bin/python benchmarks/ops/bench_ops.py``.
Prints milliseconds and the ratio stand-in / compiled: median and quartiles over the rounds of each.
Writes nothing but stdout and, with --json, one file.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

import mmdet_softpl
from mmdet_softpl.ops import stand_in

OURS, COMPILED = 'stand_in', 'compiled'
# (name, map BCHW, cells a pixel, RoIs, smallest and largest side in pixels, output bins)
ROI_CASES = [
    ('large map, 512 RoIs', (1, 256, 200, 334), 1 / 4, 512, 16, 300, 7),
    ('large map, 5 RoIs', (1, 256, 200, 334), 1 / 4, 5, 16, 300, 14),
    ('COCO P2, 800 RoIs', (2, 256, 200, 304), 1 / 4, 800, 10, 110, 7),
    ('COCO P5, 60 RoIs', (2, 256, 25, 38), 1 / 32, 60, 300, 800, 7),
    ('demo P2, 1,024 RoIs', (4, 64, 40, 40), 1 / 4, 1024, 8, 60, 7),
    ('demo P2, 400 RoIs', (2, 32, 40, 40), 1 / 4, 400, 8, 60, 7),
    ('demo masks, 100 RoIs', (4, 64, 40, 40), 1 / 4, 100, 8, 60, 14),
    ('mask targets, 64 RoIs', (64, 1, 800, 1216), 1.0, 64, 20, 400, 28),
]
# (boxes, side of the field they lie in)
NMS_CASES = [(100, 800), (1000, 800), (4000, 800), (4000, 300), (4000, 100)]


def interleave(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time the runs in turn, once unmeasured, then ``rounds`` times.

    Returns:
        Milliseconds (median) of each run, and the ratio of the first to the second: median, lower
        and upper quartile over the rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if i > 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    first, second = times.values()
    quartiles = statistics.quantiles([a / b for a, b in zip(first, second, strict=True)], n=4)
    return {
        **{f'{name}_ms': statistics.median(values) for name, values in times.items()},
        **dict(zip(('ratio_q1', 'ratio', 'ratio_q3'), quartiles, strict=True)),
    }


def random_rois(count: int, shape: tuple[int, ...], scale: float, low: int, high: int) -> Tensor:
    """Return (count, 5) RoIs of sides in [low, high] pixels, clipped to the image."""
    images, _, height, width = shape
    size = low + (high - low) * torch.rand(count, 2)
    limit = torch.tensor([width, height]) / scale
    centre = torch.rand(count, 2) * limit
    corners = [(centre - size / 2).clamp(min=0), torch.minimum(centre + size / 2, limit)]
    image = torch.arange(count) % images
    return torch.cat([image.float().unsqueeze(1), *corners], dim=1)


def bench_roi_align(ext: ModuleType, rounds: int) -> list[dict]:
    """Time RoIAlign (average, aligned, adaptive sampling), forward and backward."""
    rows = []
    for name, shape, scale, count, low, high, bins in ROI_CASES:
        maps, rois = torch.randn(shape), random_rois(count, shape, scale, low, high)
        grad = torch.randn(count, shape[1], bins, bins)
        empty = torch.zeros(0)
        settings = (bins, bins, scale, 0, 1, True)

        def forward(ops, maps=maps, rois=rois, grad=grad, empty=empty, settings=settings):
            output = torch.zeros_like(grad)
            ops.roi_align_forward(maps, rois, output, empty, empty, *settings)

        def backward(ops, shape=shape, rois=rois, grad=grad, empty=empty, settings=settings):
            grad_maps = torch.zeros(shape)
            ops.roi_align_backward(grad, rois, empty, empty, grad_maps, *settings)

        for direction, run in (('forward', forward), ('backward', backward)):
            runs = {OURS: partial(run, stand_in), COMPILED: partial(run, ext)}
            rows.append({'op': f'RoIAlign {direction}', 'case': name, **interleave(runs, rounds)})
            show(rows[-1])
    return rows


def bench_nms(ext: ModuleType, rounds: int) -> list[dict]:
    """Time NMS at an IoU of 0.7 and check that it keeps the same boxes."""
    rows = []
    for count, field in NMS_CASES:
        corners = torch.rand(count, 2) * field
        boxes = torch.cat([corners, corners + torch.rand(count, 2) * 120], dim=1)
        scores = torch.rand(count)
        kept = [ops.nms(boxes, scores, iou_threshold=0.7, offset=0) for ops in (stand_in, ext)]
        if not torch.equal(*kept):
            sys.exit(f'NMS of {count} boxes in a field of {field}: the kept boxes differ')
        runs = {
            name: partial(ops.nms, boxes, scores, iou_threshold=0.7, offset=0)
            for name, ops in ((OURS, stand_in), (COMPILED, ext))
        }
        case = f'{count} boxes, {len(kept[0])} kept'
        rows.append({'op': 'NMS', 'case': case, **interleave(runs, rounds)})
        show(rows[-1])
    return rows


def bench_training(ext: ModuleType, rounds: int) -> list[dict]:
    """Time one training iteration of a small Mask R-CNN (ResNet-18, two images of 160 x 160)."""
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config

    register_all_modules()
    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(depth=18, init_cfg=None)
    cfg.neck.update(in_channels=[64, 128, 256, 512], out_channels=64)
    cfg.rpn_head.update(in_channels=64, feat_channels=64)
    heads = cfg.roi_head
    heads.bbox_roi_extractor.out_channels = heads.mask_roi_extractor.out_channels = 64
    heads.bbox_head.update(in_channels=64, fc_out_channels=256)
    heads.mask_head.update(in_channels=64, conv_out_channels=64)
    detector = MODELS.build(cfg).train()
    inputs = demo_mm_inputs(2, [[3, 160, 160]] * 2, num_items=[8, 8], with_mask=True)
    data = detector.data_preprocessor(inputs, training=True)
    compiled = SimpleNamespace(**{op: getattr(ext, op) for op in stand_in.__all__})

    def iteration(ops) -> None:
        # mmcv.ops.nms is shadowed by the function of that name.
        for module in ('mmcv.ops.nms', 'mmcv.ops.roi_align'):
            vars(sys.modules[module])['ext_module'] = ops
        torch.manual_seed(0)
        loss, _ = detector.parse_losses(detector.loss(data['inputs'], data['data_samples']))
        loss.backward()
        detector.zero_grad()

    runs = {OURS: partial(iteration, stand_in), COMPILED: partial(iteration, compiled)}
    row = {'op': 'iteration', 'case': 'Mask R-CNN R18', **interleave(runs, 2 * rounds)}
    show(row)
    return [row]


def show(row: dict) -> None:
    """Print one line."""
    print(
        f'{row["op"]:18s} {row["case"]:24s} {row[f"{OURS}_ms"]:9.1f} ms  '
        f'compiled {row[f"{COMPILED}_ms"]:9.1f} ms  ratio {row["ratio"]:.2f} '
        f'({row["ratio_q1"]:.2f} to {row["ratio_q3"]:.2f})',
        flush=True,
    )


def main() -> None:
    """Run the benchmarks asked for."""
    benches = {'nms': bench_nms, 'training': bench_training, 'roi_align': bench_roi_align}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('which', nargs='*', help=f'of {", ".join(benches)}; default all')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--json', type=Path)
    args = parser.parse_args()
    if unknown := set(args.which) - set(benches):
        parser.error(f'unknown benchmark {", ".join(sorted(unknown))}; known: {", ".join(benches)}')
    if mmdet_softpl.ops.active() != 'compiled':
        sys.exit(f'needs a compiled mmcv to compare with; here: {mmdet_softpl.ops.describe()}')
    import mmcv._ext as ext

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    print(f'torch {torch.__version__}, {args.threads} threads, load {load:.1f} at the start')
    rows = [row for n in args.which or benches for row in benches[n](ext, args.rounds)]
    if args.json:
        result = {'torch': torch.__version__, 'threads': args.threads, 'load': load, 'rows': rows}
        temporary = args.json.with_suffix('.tmp')
        temporary.write_text(json.dumps(result, indent=1) + '\n')
        temporary.replace(args.json)


if __name__ == '__main__':
    main()
