"""Deformable convolution, in the place of the plain convolutions of a ResNet."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Module):
    """A convolution whose sampling points are moved by offsets that a second convolution predicts; it starts as the plain one it replaces.

    ``y(p) = sum over the places q of the kernel of w(q) x(p + q + d(p, q))``, the offsets ``d`` from a convolution of the same shape whose
    weights begin at 0. It computes in float32 under autocast: torchvision has no bfloat16 kernel.

    Args:
        conv: its weight, stride, padding, dilation and groups are taken over; without bias.

    Source:
        Dai et al., Deformable Convolutional Networks, ICCV 2017, Eq. (2).

    Example:
        >>> conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        >>> x = torch.rand(1, 4, 5, 5)
        >>> torch.allclose(DeformableConv(conv)(x), conv(x), atol=1e-6)
        True
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        size, stride = (cast(tuple[int, int], value) for value in (conv.kernel_size, conv.stride))
        padding, dilation = (cast(tuple[int, int], value) for value in (conv.padding, conv.dilation))
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = conv.weight
        self.offset = nn.Conv2d(conv.in_channels, 2 * size[0] * size[1], size, stride=stride, padding=padding, dilation=dilation)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(cast(Tensor, self.offset.bias))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b _c _h _w"]:
        # autocast leaves deform_conv2d alone: it computes in the type of its inputs
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        offset = self.offset(x).to(full.dtype)
        found = deform_conv2d(full, offset, self.weight, stride=self.stride, padding=self.padding, dilation=self.dilation)
        return cast(Tensor, found)
