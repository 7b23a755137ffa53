"""Layers that take the place of those of a backbone: a batch norm that is held still, and a convolution that looks where it is told to."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class StoredBatchNorm(nn.BatchNorm2d):
    """A batch norm that uses its stored mean and variance at all times; its factors are trained.

    For pretrained backbones, where batches are too small to measure. Not ``FrozenBatchNorm2d``: its float32 arithmetic undoes bf16, its
    factors are fixed, and its checkpoints do not load into a batch norm.
    """

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)


class DeformableConv(nn.Module):
    """A convolution that looks where a second one tells it to; it starts as the plain one it replaces.

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
        # deform_conv2d is on no list of autocast: what it computes in is what it is given
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        offset = self.offset(x).to(full.dtype)
        found = deform_conv2d(full, offset, self.weight, stride=self.stride, padding=self.padding, dilation=self.dilation)
        return cast(Tensor, found)


def hold_norms(module: nn.Module, *, every: bool) -> None:
    """Puts batch norms into evaluation mode, in which they use their stored mean and variance: all, or those that are not trained.

    Args:
        module: its batch norms, at any depth, of any class: an EfficientNet of timm has one of its own.
        every: all of them; otherwise those none of whose factors are trained, which are those of frozen stages.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(2).requires_grad_(False), nn.BatchNorm2d(2))
        >>> hold_norms(net, every=False)
        >>> [norm.training for norm in net]
        [False, True]
    """
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and (every or not any(p.requires_grad for p in norm.parameters())):
            norm.eval()
