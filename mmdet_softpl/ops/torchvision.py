"""torchvision's ops, where they load.

A torchvision built for another torch imports but has no operators (``operator torchvision::nms does
not exist``), and one built for the CPU has none for a GPU (``Could not run 'torchvision::nms' with
arguments from the 'CUDA' backend``). So each op is called once on a tiny input of a device before
it is trusted there.
"""

import functools

import torch


@functools.cache
def why_unusable(device_type: str) -> str | None:
    """Return None if torchvision's ``nms`` and ``roi_align`` work on a device, else why not.

    Args:
        device_type: ``torch.device.type``, such as ``'cpu'`` or ``'cuda'``.
    """
    try:
        import torchvision.ops as ops

        box = torch.tensor([[0.0, 0.0, 2.0, 2.0]], device=device_type)
        kept = ops.nms(box, torch.ones(1, device=device_type), 0.5).tolist()
        roi = torch.cat([torch.zeros(1, 1, device=device_type), box], dim=1)
        maps = torch.ones(1, 1, 4, 4, device=device_type)
        pooled = ops.roi_align(maps, roi, (1, 1), 1.0, 1, True).item()
    except ImportError as error:
        return f'not importable, {error}'
    except Exception as error:  # a torchvision for another torch raises RuntimeError and others
        # PyTorch lists every backend and its source line after the first sentence.
        return f'broken on {device_type}, {type(error).__name__}: {str(error).splitlines()[0]}'
    if kept != [0] or pooled != 1.0:
        return f'wrong results on a test input on {device_type}'
    return None
