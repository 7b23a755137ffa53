"""The loss of a detector of centers: heat maps, and the place and size at the centers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..boxes._dtype import upcast
from ..losses import KeypointFocalLoss, l1_loss
from ..records import IGNORE, Assignment, RawPredictions, Targets
from .base import Objective, Part
from .positives import find_positives, global_count, offsets_of


class CenterPointObjective(Objective):
    """Objects as Points: the keypoint focal loss of the heat maps, L1 of offset and size; the parts "heat_map", "offset" and "size".

    With N the number of positive cells, at least 1: ``heat_map = 1/N sum over cells and classes of L(logit, heat)``, ``offset`` and
    ``size = 1/N sum over positive cells of |x - x*| + |y - y*|`` of the first and the last two numbers of the regression, in cells. In
    distributed training N is that of all processes over their number.

    The heat of a class is the largest over its boxes of ``exp(-d^2 / (2 s^2))``, d the distance of the cell in cells from the cell of the
    center, s a sixth of the width ``2 r + 1`` of the neighborhood that ``gaussian_radius`` gives; it is 1 at the center. Crowds have no
    heat, and what the assignment ignores takes no part.

    Args:
        heat_map: the loss of the heat maps; None is ``KeypointFocalLoss()``.
        min_overlap: IoU that a box keeps when its corners are moved by the radius, in (0, 1).
        offset_weight: >= 0.
        size_weight: >= 0.

    Raises:
        ValueError: an option out of its range.

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Eqs. (1)-(4); the radius: Law and Deng, CornerNet, ECCV 2018, Sec. 3.2.

    Example:
        >>> from lossbox.boxes import CellCoder
        >>> cells = torch.tensor([[0., 0., 4., 4.], [4., 0., 8., 4.]])
        >>> raw = RawPredictions(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4), cells, (2,), CellCoder())
        >>> box = Targets(torch.tensor([[0., 0., 4., 4.]]), torch.tensor([0]), torch.tensor([False]), 7, (4, 8), (4, 8))
        >>> parts = CenterPointObjective()(raw, Assignment(torch.tensor([[0, -1]])), [box])
        >>> parts["offset"], parts["size"]
        (Part(value=tensor(1.), weight=1.0), Part(value=tensor(2.), weight=0.1))
    """

    tuned = ("min_overlap", "offset_weight", "size_weight")

    def __init__(
        self,
        heat_map: KeypointFocalLoss | None = None,
        *,
        min_overlap: float = 0.7,
        offset_weight: float = 1.0,
        size_weight: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 < min_overlap < 1:
            raise ValueError(f"min_overlap: a number in (0, 1) expected, got {min_overlap}")
        for name, value in (("offset_weight", offset_weight), ("size_weight", size_weight)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: a finite number >= 0 expected, got {value}")
        self.heat_map = KeypointFocalLoss() if heat_map is None else heat_map
        self.min_overlap, self.offset_weight, self.size_weight = min_overlap, offset_weight, size_weight

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        with torch.autocast(predictions.logits.device.type, enabled=False):
            positives = find_positives(predictions, assignment, targets)
            logits = upcast(predictions.logits)
            count = global_count(positives.boxes.to(logits.dtype), training=self.training)
            heat = torch.stack([heat_maps(predictions.anchors, t, logits.shape[-1], min_overlap=self.min_overlap) for t in targets])
            heat = torch.where((assignment.matched == IGNORE)[..., None], -1.0, heat.to(logits.dtype))
            heat_map = self.heat_map(logits, heat, normalizer=count)
            off = l1_loss(
                offsets_of(predictions, positives), predictions.coder.encode(positives.boxes, positives.anchors), reduction="none"
            )
        return {
            "heat_map": Part(heat_map),
            "offset": Part(off[:, :2].sum() / count, self.offset_weight),
            "size": Part(off[:, 2:].sum() / count, self.size_weight),
        }


@torch.no_grad()
def heat_maps(cells: Float[Tensor, "a 4"], targets: Targets, num_classes: int, *, min_overlap: float = 0.7) -> Float[Tensor, "a c"]:
    """The heat of each cell for each class, in [0, 1]; 1 in the cell that holds the center of a box.

    Args:
        cells: (a, 4) squares ``x1 y1 x2 y2`` of positive side.
        targets: the boxes of an image; crowds have no heat.
        num_classes: C.
        min_overlap: IoU that a box keeps when its corners are moved by the radius, in (0, 1).

    Returns:
        (a, C).

    Source:
        Zhou et al., Objects as Points, arXiv:1904.07850, Sec. 3.

    Example:
        >>> cells = torch.tensor([[0., 0., 4., 4.], [4., 0., 8., 4.]])
        >>> box = Targets(torch.tensor([[-40., -40., 44., 44.]]), torch.tensor([0]), torch.tensor([False]), 7, (4, 8), (4, 8))
        >>> heat_maps(cells, box, 1)
        tensor([[1.0000],
                [0.1353]])
    """
    boxes, labels = targets.boxes[~targets.crowd], targets.labels[~targets.crowd]
    heat = cells.new_zeros(num_classes, len(cells))
    if not len(boxes) or not len(cells):
        return heat.T
    side = cells[0, 2] - cells[0, 0]
    # in cells: the distance from the cell of the center, not from the center itself, so that the heat there is exactly 1
    center = ((boxes[:, :2] + boxes[:, 2:]) / 2 / side).floor()
    distance = (center[:, None] - (cells[:, :2] / side).round()).square().sum(-1)
    size = (boxes[:, 2:] - boxes[:, :2]) / side
    spread = (2 * gaussian_radius(size, min_overlap).floor() + 1) / 6
    each = torch.exp(-distance / (2 * spread.square()[:, None]))
    each = torch.where(each < torch.finfo(torch.float32).eps, 0.0, each).to(heat.dtype)
    return heat.scatter_reduce_(0, labels[:, None].expand(-1, len(cells)), each, "amax").T


def gaussian_radius(size: Float[Tensor, "n 2"], min_overlap: float) -> Float[Tensor, " n"]:
    """How far the corners of a box may move so that it keeps an IoU of at least ``min_overlap``, whichever way they move.

    The smallest of three: both corners move inwards, outwards, or the box moves along its diagonal. The IoUs of a box of (w, h) moved by r
    are ``(w - 2r)(h - 2r) / wh``, ``wh / ((w + 2r)(h + 2r))`` and ``(w - r)(h - r) / (2wh - (w - r)(h - r))``.

    Args:
        size: (n, 2) width and height, in any unit.
        min_overlap: in (0, 1).

    Returns:
        (n,) >= 0, in the same unit.

    Source:
        Law and Deng, CornerNet, ECCV 2018, Sec. 3.2.

    Example:
        >>> gaussian_radius(torch.tensor([[10.0, 10.0]]), 0.7)
        tensor([0.8167])
    """
    width, height = size.clamp(min=0).unbind(-1)
    total, area = width + height, width * height

    def smallest_root(a: float, b: Tensor, c: Tensor) -> Tensor:
        """Of ``a r^2 - b r + c = 0`` with all three >= 0, without cancellation."""
        return 2 * c / (b + (b.square() - 4 * a * c).clamp(min=0).sqrt()).clamp(min=torch.finfo(b.dtype).tiny)

    inwards = smallest_root(4.0, 2 * total, (1 - min_overlap) * area)
    diagonal = smallest_root(1.0, total, (1 - min_overlap) / (1 + min_overlap) * area)
    # 4 r^2 + 2 total r + (1 - 1 / min_overlap) area = 0: the positive root
    gap = (1 / min_overlap - 1) * area
    outwards = 2 * gap / (2 * total + (4 * total.square() + 16 * gap).sqrt()).clamp(min=torch.finfo(total.dtype).tiny)
    return torch.minimum(torch.minimum(inwards, outwards), diagonal)
