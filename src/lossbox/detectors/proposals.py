"""Between the two stages of a detector: which boxes the first stage hands on, and what the second sees of them.

A batch of proposals is one tensor (b, p, 4); a picture with fewer than p is filled up with boxes of zeros, which have no area.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms, roi_align

from ..boxes import box_area
from ..records import RawPredictions, Targets


@torch.no_grad()
def choose_proposals(
    predictions: RawPredictions,
    size: tuple[int, int],
    *,
    nms_threshold: float = 0.7,
    top_k_per_level: int = 1000,
    max_proposals: int = 1000,
) -> Float[Tensor, "b p 4"]:
    """The best boxes of a first stage, the same way in training and in evaluation.

    Of each level the ``top_k_per_level`` best scores are kept, whatever they are; their boxes are decoded and cut at the border of the
    batch; those with nothing left are dropped; on each level a box falls that has ``IoU > nms_threshold`` with a better one; the best
    ``max_proposals`` of all levels remain.

    Args:
        predictions: of b pictures, about one class.
        size: (height, width) of the batch.
        nms_threshold: IoU, in [0, 1].
        top_k_per_level: candidates a level, >= 1.
        max_proposals: of one picture, >= 1.

    Returns:
        (b, p, 4) ``x1 y1 x2 y2``, best first, without a gradient; p is that of the picture that has most, the others end with zeros.

    Source:
        Ren et al., Faster R-CNN, NeurIPS 2015, Sec. 3.3; a level at a time: Lin et al., Feature Pyramid Networks, CVPR 2017, Sec. 4.1.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [1., 0., 11., 10.], [30., 30., 50., 50.]])
        >>> raw = RawPredictions(torch.tensor([[[2.0], [1.0], [-3.0]]]), torch.zeros(1, 3, 4), anchors, (3,), DeltaCoder())
        >>> choose_proposals(raw, (40, 40))
        tensor([[[ 0.,  0., 10., 10.],
                 [30., 30., 40., 40.]]])
    """
    scores, places, levels, start = [], [], [], 0
    for number, level in enumerate(torch.split(predictions.logits[..., 0].float(), list(predictions.level_sizes), 1)):
        best, order = level.topk(min(top_k_per_level, level.shape[1]), 1)
        scores.append(best)
        places.append(order + start)
        levels.append(torch.full_like(order, number))
        start += level.shape[1]
    score, place, of_level = torch.cat(scores, 1), torch.cat(places, 1), torch.cat(levels, 1)
    regression = predictions.regression.gather(1, place[..., None].expand(-1, -1, 4))
    x1, y1, x2, y2 = predictions.coder.decode(regression, predictions.anchors[place]).unbind(-1)
    height, width = size
    boxes = torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)
    # written so that a NaN is dropped too
    real = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    chosen = []
    for i in range(len(boxes)):
        rows = real[i].nonzero()[:, 0]
        kept = rows[batched_nms(boxes[i, rows], score[i, rows], of_level[i, rows], nms_threshold)[:max_proposals]]
        chosen.append(boxes[i, kept])
    return pad_sequence(chosen, batch_first=True)


def add_true_boxes(proposals: Float[Tensor, "b p 4"], targets: Sequence[Targets]) -> Float[Tensor, "b q 4"]:
    """The proposals with the true boxes of their pictures behind them: a second stage has positives from the first step on.

    Crowd regions are not added.

    Args:
        proposals: (b, p, 4) ``x1 y1 x2 y2``.
        targets: one record a picture, in the frame of the proposals.

    Returns:
        (b, p + n, 4) with n the boxes of the picture that has most; zeros fill up the others.

    Raises:
        ValueError: another number of targets than pictures.

    Example:
        >>> box = Targets(torch.tensor([[2., 2., 9., 9.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> add_true_boxes(torch.tensor([[[0., 0., 10., 10.]]]), [box])
        tensor([[[ 0.,  0., 10., 10.],
                 [ 2.,  2.,  9.,  9.]]])
    """
    if len(targets) != len(proposals):
        raise ValueError(f"targets: one record for each of the {len(proposals)} pictures expected, got {len(targets)}")
    true = [torch.where(t.crowd[:, None], 0.0, t.boxes).to(proposals) for t in targets]
    return torch.cat([proposals, pad_sequence(true, batch_first=True)], 1)


def crop_regions(
    features: Sequence[Float[Tensor, "b c _h _w"]],
    boxes: Float[Tensor, "b p 4"],
    strides: Sequence[int],
    *,
    size: int = 7,
    finest_scale: float = 56.0,
) -> Float[Tensor, "n c size size"]:
    """What lies under each box, from the level that suits its size, resampled to ``size`` x ``size``.

    ``level = floor(log2(sqrt(width * height) / finest_scale))``, held between the first and the last level; on it RoIAlign of
    torchvision with ``aligned=True`` and 2 x 2 samples a bin. Not ``MultiScaleRoIAlign``: that shifts boxes by half a cell and guesses the
    strides from the sizes, wrongly for small pictures.

    Args:
        features: levels, finest first.
        boxes: (b, p, 4) ``x1 y1 x2 y2`` in pixels of the batch, without a gradient.
        strides: of the levels, in pixels.
        size: rows and columns of each crop.
        finest_scale: pixels; boxes of up to twice this side are cut from the finest level.

    Returns:
        (b * p, c, size, size), box by box; zeros for a box without area.

    Source:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3; the level: Lin et al., Feature Pyramid Networks, CVPR 2017, Eq. (1), where a box of
        side 224 takes the third of four levels.

    Example:
        >>> ramp = torch.arange(8.).expand(1, 1, 8, 8)
        >>> crop_regions([ramp], torch.tensor([[[8., 8., 24., 24.]]]), [4], size=2)
        tensor([[[[2.5000, 4.5000],
                  [2.5000, 4.5000]]]])
    """
    count, channels = boxes.shape[0] * boxes.shape[1], features[0].shape[1]
    picture = torch.arange(len(boxes), device=boxes.device).repeat_interleave(boxes.shape[1])
    flat = boxes.reshape(count, 4).float()
    area = box_area(flat)
    level = torch.log2(area.clamp(min=1e-6).sqrt() / finest_scale).floor().clamp(0, len(features) - 1)
    level = torch.where(area > 0, level, -1.0)
    regions = torch.cat([picture[:, None].to(flat), flat], 1)
    crops = features[0].new_zeros(count, channels, size, size)
    for number, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        rows = (level == number).nonzero()[:, 0]
        cut = roi_align(feature.float(), regions[rows], size, 1 / stride, sampling_ratio=2, aligned=True)
        crops = crops.index_put((rows,), cut.to(crops.dtype))
    return crops
