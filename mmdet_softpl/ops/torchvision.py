"""torchvision's ops, where they load.

A torchvision built for another torch imports but has no operators (``operator torchvision::nms does
not exist``), so each op is called once on a tiny input before it is trusted.
"""

import functools

import torch


@functools.cache
def why_unusable() -> str | None:
    """Return None if torchvision's ``nms`` and ``roi_align`` work here, else why they do not."""
    try:
        import torchvision.ops as ops

        box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        kept = ops.nms(box, torch.ones(1), 0.5)
        roi = torch.cat([torch.zeros(1, 1), box], dim=1)
        pooled = ops.roi_align(torch.ones(1, 1, 4, 4), roi, (1, 1), 1.0, 1, True)
    except ImportError as error:
        return f'not importable, {error}'
    except Exception as error:  # a torchvision for another torch raises RuntimeError and others
        return f'broken, {type(error).__name__}: {error}'
    if kept.tolist() != [0] or pooled.item() != 1.0:
        return 'wrong results on a test input'
    return None
