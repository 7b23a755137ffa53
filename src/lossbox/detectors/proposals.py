"""Between the two stages of a detector: the choice of proposals, and their crops.

A batch of proposals is one tensor (b, p, 4); an image with fewer than p is filled up with boxes of zeros, which have no area.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import batched_nms, box_iou

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
    batch; those with nothing left are dropped; on each level per box falls that has ``IoU > nms_threshold`` with a better one; the best
    ``max_proposals`` of all levels remain.

    Args:
        predictions: of b images, about one class.
        size: (height, width) of the batch.
        nms_threshold: IoU, in [0, 1].
        top_k_per_level: candidates per level, >= 1.
        max_proposals: of one image, >= 1.

    Returns:
        (b, p, 4) ``x1 y1 x2 y2``, best first, without a gradient; p is that of the image that has most, the others end with zeros.
        For a tracer (``torch.export``, ``torch.compile``) p does not depend on the numbers: it is the most there can be at this size.

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
    boxes = torch.where(real[..., None], boxes, 0.0)  # overlaps with nothing
    if torch.compiler.is_compiling():
        of_levels = torch.split(boxes, [best.shape[1] for best in scores], 1)
        kept = torch.cat([_traceable_nms(of_one, nms_threshold) for of_one in of_levels], 1)
    else:
        kept = torch.zeros_like(real)
        for i in range(len(boxes)):
            kept[i].index_fill_(0, batched_nms(boxes[i], score[i], of_level[i], nms_threshold), True)
    kept &= real
    # what is kept comes first, even at a score of -inf
    score = torch.where(kept, score.clamp(min=torch.finfo(score.dtype).min), -torch.inf)
    first = score.topk(min(max_proposals, score.shape[1]), 1).indices
    chosen = torch.where(kept.gather(1, first)[..., None], boxes.gather(1, first[..., None].expand(-1, -1, 4)), 0.0)
    return chosen if torch.compiler.is_compiling() else chosen[:, : int(kept.sum(1).max())]


def _traceable_nms(boxes: Float[Tensor, "b n 4"], threshold: float) -> Bool[Tensor, "b n"]:
    """Which of these boxes, best first, ``nms`` keeps, as a graph of fixed shapes for any b.

    ``kept[i] = no j < i with kept[j] and IoU[i, j] > threshold`` is applied to all boxes at once until nothing changes. That state is the
    only one there is, and it comes: the first i boxes are final after i rounds, and a few rounds do for all. It takes b n^2 numbers, so it
    is only for tracers: how many boxes ``nms`` returns they know neither of an image nor, in a loop over images, of any.
    """
    falls = (torch.vmap(box_iou)(boxes, boxes) > threshold).tril(-1).to(boxes.dtype)

    def changes(kept: Tensor, before: Tensor) -> Tensor:
        return (kept != before).any()

    def once_more(kept: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        return (falls @ kept == 0).to(kept.dtype), kept.clone()

    everything = torch.ones_like(boxes[..., :1])
    kept: Tensor = torch.while_loop(changes, once_more, (everything, torch.zeros_like(everything)))[0]  # type: ignore[no-untyped-call]
    return kept[..., 0] > 0


def add_true_boxes(proposals: Float[Tensor, "b p 4"], targets: Sequence[Targets]) -> Float[Tensor, "b q 4"]:
    """The proposals with the true boxes of their images behind them: a second stage has positives from the first step on.

    Crowd regions are not added.

    Args:
        proposals: (b, p, 4) ``x1 y1 x2 y2``.
        targets: one record per image, in the frame of the proposals.

    Returns:
        (b, p + n, 4) with n the boxes of the image that has most; zeros fill up the others.

    Raises:
        ValueError: another number of targets than images.

    Example:
        >>> box = Targets(torch.tensor([[2., 2., 9., 9.]]), torch.tensor([3]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> add_true_boxes(torch.tensor([[[0., 0., 10., 10.]]]), [box])
        tensor([[[ 0.,  0., 10., 10.],
                 [ 2.,  2.,  9.,  9.]]])
    """
    if len(targets) != len(proposals):
        raise ValueError(f"targets: one record for each of the {len(proposals)} images expected, got {len(targets)}")
    true = [torch.where(t.crowd[:, None], 0.0, t.boxes).to(proposals) for t in targets]
    return torch.cat([proposals, pad_sequence(true, batch_first=True)], 1)


def crop_regions(
    features: Sequence[Float[Tensor, "b c _h _w"]],
    boxes: Float[Tensor, "b p 4"],
    strides: Sequence[int],
    *,
    size: int = 7,
    finest_scale: float = 56.0,
) -> Float[Tensor, "n _size _size c"]:
    """Crops of the features under each box, from the level that suits its size, resampled to ``size`` x ``size``: RoIAlign.

    ``level = floor(log2(sqrt(width * height) / finest_scale))``, held between the first and the last level. Each bin is the mean of 2 x 2
    samples, each sample the bilinear mean of four cells, 0 farther than one cell outside of the level; a cell of index i has its center at
    ``(i + 1/2) stride``.

    It is ``torchvision.ops.roi_align`` with ``aligned=True`` on the level of each box, to rounding, but all levels and boxes are one
    weighted sum of rows of one table (``embedding_bag``): on a CPU about three times as fast forward and backward, and nothing waits for
    the device. ``MultiScaleRoIAlign`` would shift boxes by half a cell and guess the strides from the sizes, wrongly for small images.

    Args:
        features: levels, finest first.
        boxes: (b, p, 4) ``x1 y1 x2 y2`` in pixels of the batch; they get no gradient.
        strides: of the levels, in pixels.
        size: rows and columns of each crop.
        finest_scale: pixels; boxes of up to twice this side are cut from the finest level.

    Returns:
        (b * p, size, size, c), box by box: row, column, channel; zeros for a box without area.

    Source:
        He et al., Mask R-CNN, ICCV 2017, Sec. 3; the level: Lin et al., Feature Pyramid Networks, CVPR 2017, Eq. (1), where a box of
        side 224 takes the third of four levels.

    Example:
        >>> ramp = torch.arange(8.).expand(1, 1, 8, 8)
        >>> crop_regions([ramp], torch.tensor([[[8., 8., 24., 24.]]]), [4], size=2)[..., 0]
        tensor([[[2.5000, 4.5000],
                 [2.5000, 4.5000]]])
    """
    shape, channels = boxes.shape[:2], features[0].shape[1]
    flat = boxes.detach().reshape(-1, 4).float()
    area = box_area(flat)
    level = torch.log2(area.clamp(min=1e-6).sqrt() / finest_scale).floor().clamp(0, len(features) - 1)
    # each level is (b * rows * columns) rows of the table, level after level
    table = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features])
    firsts, first = [], 0
    for feature in features:
        firsts.append(first)
        first += feature.numel() // channels
    rows, columns = (_by_level(level, [feature.shape[axis] for feature in features]) for axis in (2, 3))
    stride = _by_level(level, strides)
    image = torch.arange(shape[0], device=boxes.device).repeat_interleave(shape[1])
    start = _by_level(level, firsts) + image * rows * columns

    x1, y1, x2, y2 = flat.unbind(-1)
    y, weight_y = _taps(y1 / stride, y2 / stride, rows, size)
    x, weight_x = _taps(x1 / stride, x2 / stride, columns, size)
    y = start[:, None, None] + y * columns[:, None, None]
    index = y[:, :, None, :, None] + x[:, None, :, None, :]
    weight = (weight_y * (area > 0)[:, None, None])[:, :, None, :, None] * weight_x[:, None, :, None, :]
    index, weight, features_of_cells = index.view(-1, 16), weight.view(-1, 16), table.float()
    if torch.compiler.is_compiling():
        # the same sum, tap by tap: ONNX has no embedding_bag (the exporter would loop over all bins), and all taps at once are large
        crops = sum((features_of_cells.index_select(0, index[:, tap]) * weight[:, tap, None] for tap in range(16)), weight.new_zeros(()))
    else:
        crops = F.embedding_bag(index, features_of_cells, per_sample_weights=weight, mode="sum")
    return crops.view(-1, size, size, channels).to(table.dtype)


def _by_level(level: Float[Tensor, " n"], values: Sequence[int]) -> Int[Tensor, " n"]:
    """The value of each one's level. Not a tensor of the values: that would be copied to the accelerator."""
    chosen = torch.full_like(level, values[0], dtype=torch.int64)
    for number, value in enumerate(values[1:], 1):
        chosen = torch.where(level == number, value, chosen)
    return chosen


def _taps(
    low: Float[Tensor, " n"], high: Float[Tensor, " n"], cells: Int[Tensor, " n"], size: int
) -> tuple[Int[Tensor, "n _size 4"], Float[Tensor, "n _size 4"]]:
    """Along one axis: the four cells of each bin (two samples, two cells each) and what they weigh; in units of cells."""
    share = (torch.arange(2 * size, device=low.device) + 0.5) / (2 * size)
    at = low[:, None] + (high - low)[:, None] * share - 0.5
    last = (cells - 1)[:, None]
    counted = ((at >= -1) & (at <= cells[:, None])) / 2
    at = torch.minimum(at.clamp(min=0), last)
    below = at.floor()
    upper = at - below
    cell = torch.stack([below.long(), torch.minimum(below.long() + 1, last)], -1)
    weight = torch.stack([1 - upper, upper], -1) * counted[..., None]
    return cell.view(-1, size, 4), weight.view(-1, size, 4)
