"""The precision that everything is computed in."""

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """float16, bfloat16, integers and booleans to float32; float32 and float64 stay."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
