"""The device that a command runs its network on."""

from __future__ import annotations


def chosen_device(wanted: str | None) -> str:
    """``wanted``, or the GPU where there is one.

    Raises:
        ValueError: torch cannot use it.
    """
    import torch

    if wanted is None:
        return 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {wanted}: {str(error).splitlines()[0]}') from error
    return wanted
