"""Make ``ops_reference.npz`` with mmcv's compiled ops: what tests/ops compares the stand-in with.

Run it where ``mmcv==2.1.0`` is compiled: ``python tests/data/make_ops_reference.py``.
Inputs are stored with the outputs, so the file does not depend on a random generator's version.
"""

import itertools
from pathlib import Path

import mmcv._ext as ext
import numpy as np
import torch

OUTPUT = Path(__file__).with_name('ops_reference.npz')
# Inside, over each border, off the map, empty, thinner than a cell, and larger than the map.
ROIS = [
    [0, 8.0, 6.0, 40.5, 33.25],
    [1, -20.0, -9.5, 18.0, 12.0],
    [1, 45.0, 30.0, 90.0, 70.0],
    [0, 200.0, 200.0, 240.0, 260.0],
    [0, 10.0, 10.0, 10.0, 10.0],
    [1, 30.0, 5.0, 30.6, 44.0],
    [0, -30.0, -30.0, 100.0, 90.0],
    [1, 0.0, 0.0, 60.0, 48.0],
]
BINS = (3, 2)
SCALE = 0.25


def roi_align(arrays: dict[str, np.ndarray]) -> None:
    """Add forward, argmax and gradient for every setting."""
    maps, rois = torch.randn(2, 3, 12, 15), torch.tensor(ROIS)
    grad = torch.randn(len(rois), 3, *BINS)
    arrays.update(roi_maps=maps.numpy(), roi_rois=rois.numpy(), roi_grad=grad.numpy())
    for mode, ratio, aligned in itertools.product((0, 1), (0, 2), (False, True)):
        output = torch.zeros(len(rois), 3, *BINS)
        argmax = [torch.zeros_like(output) if mode == 0 else torch.zeros(0) for _ in 'yx']
        settings = (*BINS, SCALE, ratio, mode, aligned)
        ext.roi_align_forward(maps, rois, output, *argmax, *settings)
        grad_maps = torch.zeros_like(maps)
        ext.roi_align_backward(grad, rois, *argmax, grad_maps, *settings)
        key = f'roi_{mode}_{ratio}_{int(aligned)}'
        arrays[f'{key}_output'] = output.numpy()
        arrays[f'{key}_argmax_y'], arrays[f'{key}_argmax_x'] = (a.numpy() for a in argmax)
        arrays[f'{key}_grad_maps'] = grad_maps.numpy()


def nms(arrays: dict[str, np.ndarray]) -> None:
    """Add NMS and soft-NMS on crowded boxes, among them doubles, empty ones and IoUs of 1 / 2."""
    corners = torch.rand(240, 2) * 100
    boxes = torch.cat([corners, corners + torch.rand(240, 2) * 60], dim=1)
    boxes[200:220] = boxes[:20]
    boxes[220:225, 2:] = boxes[220:225, :2]
    boxes[225:230] = torch.tensor([0.0, 0.0, 10.0, 10.0])
    boxes[230:235] = torch.tensor([0.0, 0.0, 10.0, 5.0])
    scores = torch.rand(240)
    scores[205:215] = scores[5:15]
    arrays.update(nms_boxes=boxes.numpy(), nms_scores=scores.numpy())
    for threshold, offset in itertools.product((0.3, 0.5, 0.7), (0, 1)):
        kept = ext.nms(boxes, scores, threshold, offset)
        arrays[f'nms_{threshold}_{offset}'] = kept.numpy()
        for method in (0, 1, 2):
            dets = torch.zeros(len(boxes), 5)
            kept = ext.softnms(boxes, scores, dets, threshold, 0.5, 0.05, method, offset)
            arrays[f'softnms_{threshold}_{offset}_{method}_kept'] = kept.numpy()
            arrays[f'softnms_{threshold}_{offset}_{method}_dets'] = dets[: len(kept)].numpy()


def main() -> None:
    """Write the file."""
    torch.manual_seed(0)
    arrays: dict[str, np.ndarray] = {}
    roi_align(arrays)
    nms(arrays)
    np.savez_compressed(OUTPUT, **arrays)
    print(f'{OUTPUT}: {len(arrays)} arrays, {OUTPUT.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
