"""FreeAnchor: which anchors are positive is learned together with the detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..boxes import box_area, pairwise_intersection
from ..boxes._dtype import upcast
from ..losses import SmoothL1Loss
from ..losses._logspace import softplus
from ..records import IGNORE, Assignment, RawPredictions, Targets
from .base import Objective, Part, check_box_loss
from .positives import global_count

SMALLEST_REST = 1e-12
"""Below it ``1 - P`` of an anchor of a bag counts as it, so that one perfect anchor does not weigh infinitely."""


class FreeAnchorObjective(Objective):
    """FreeAnchor: each box has a bag of candidate anchors, of which at least one has to find it; the parts "positive" and "negative".

    ``L = positive_weight L_pos + negative_weight L_neg`` with B the boxes of the batch, A_i the bag of box i (the ``bag_size`` anchors of
    largest IoU, of equal ones any), ``p_jc`` the score of anchor j for class c, and ``P_ij = p_jc(i) exp(-localization_weight E_ij)``
    with ``E_ij`` the box loss:

        L_pos = -1/|B| sum_i log(mean-max over j in A_i of P_ij),  mean-max(x) = sum_j (x_j / (1 - x_j)) / sum_j (1 / (1 - x_j))
        L_neg = 1/(|B| bag_size) sum_jc q^gamma (-log(1 - q)),     q = p_jc (1 - m_jc)

    ``m_jc``, which takes no gradient, is how surely anchor j belongs to a box of class c: the largest over these boxes of
    ``clamp((IoU - threshold) / (saturation - threshold), 0, 1)``, with the IoU of the *predicted* box.

    It matches by itself. Of the assignment only what is ignored is used, which takes no part in ``L_neg``: an assigner that ignores crowds
    and nothing else fits, as ``ATSSAssigner`` does. In distributed training |B| is that of all processes over their number.

    Args:
        localization: a ``lossbox.losses.BoxLoss``; of one that compares deltas, E is the sum over the four. None is
            ``SmoothL1Loss(beta=1/9)``.
        bag_size: anchors of a bag, >= 1; all where there are fewer.
        threshold: IoU up to which an anchor is surely negative, in [0, 1).
        saturation: IoU from which it is surely positive, in (threshold, 1]; None: the largest IoU that any anchor has with the box.
        gamma: how fast easy negatives fade, >= 0.
        positive_weight: >= 0.
        negative_weight: >= 0.
        localization_weight: >= 0.

    Raises:
        ValueError: a box loss that does not fit, with the reason; an option out of its range.

    Source:
        Zhang et al., FreeAnchor: Learning to Match Anchors for Visual Object Detection, NeurIPS 2019, Eqs. (5)-(8); the defaults are those
        of the authors' code, which divides L_neg by 1 in a batch without boxes, where this divides by ``bag_size``.

    Example:
        >>> from lossbox.boxes import DeltaCoder
        >>> anchors = torch.tensor([[0., 0., 10., 10.], [20., 0., 30., 10.]])
        >>> raw = RawPredictions(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4), anchors, (2,), DeltaCoder())
        >>> box = Targets(torch.tensor([[0., 0., 10., 10.]]), torch.tensor([0]), torch.tensor([False]), 7, (40, 40), (40, 40))
        >>> parts = FreeAnchorObjective(bag_size=1)(raw, Assignment(torch.tensor([[0, -1]])), [box])
        >>> parts["positive"], parts["negative"]
        (Part(value=tensor(0.6931), weight=0.5), Part(value=tensor(0.1733), weight=0.5))
    """

    tuned = ("bag_size", "threshold", "saturation", "gamma", "positive_weight", "negative_weight", "localization_weight")

    def __init__(
        self,
        localization: nn.Module | Callable[..., Any] | None = None,
        *,
        bag_size: int = 50,
        threshold: float = 0.6,
        saturation: float | None = None,
        gamma: float = 2.0,
        positive_weight: float = 0.5,
        negative_weight: float = 0.5,
        localization_weight: float = 0.75,
    ) -> None:
        super().__init__()
        if bag_size < 1:
            raise ValueError(f"bag_size: a number >= 1 expected, got {bag_size}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: a number in [0, 1) expected, got {threshold}")
        if saturation is not None and not threshold < saturation <= 1:
            raise ValueError(f"saturation: a number in (threshold, 1] expected, got {saturation} with threshold {threshold}")
        weights = {"positive_weight": positive_weight, "negative_weight": negative_weight, "localization_weight": localization_weight}
        for name, value in {"gamma": gamma, **weights}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: a finite number >= 0 expected, got {value}")
        self.localization = check_box_loss(SmoothL1Loss(beta=1 / 9) if localization is None else localization)
        self.bag_size, self.gamma = bag_size, gamma
        self.threshold, self.saturation = threshold, saturation
        self.positive_weight, self.negative_weight, self.localization_weight = positive_weight, negative_weight, localization_weight

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        if assignment.matched.shape != predictions.logits.shape[:2] or len(targets) != len(assignment.matched):
            raise ValueError(
                f"assignment, targets: {tuple(predictions.logits.shape[:2])} (images, anchors) as in predictions.logits expected, "
                f"got {tuple(assignment.matched.shape)} and {len(targets)} targets"
            )
        with torch.autocast(predictions.logits.device.type, enabled=False):
            logits, regression = upcast(predictions.logits), upcast(predictions.regression)
            of_boxes, matched = [logits.new_zeros(0)], torch.zeros_like(logits)
            for i, target in enumerate(targets):
                anchors = predictions.anchors if predictions.anchors.ndim == 2 else predictions.anchors[i]
                boxes, labels = target.boxes[~target.crowd].to(logits.dtype), target.labels[~target.crowd]
                if len(boxes) and len(anchors):
                    of_boxes.append(self._of_bags(logits[i], regression[i], anchors, boxes, labels, predictions.coder))
                    predicted = predictions.coder.decode(regression[i].detach(), anchors)
                    rows = labels[:, None].expand(-1, len(anchors))
                    matched[i] = matched[i].T.scatter_reduce(0, rows, self.matched_share(predicted, boxes), "amax").T
            positive = torch.cat(of_boxes)
            count = global_count(positive.detach(), training=self.training)
            negative = focal_of_unmatched(logits, matched, self.gamma)
            negative = torch.where((assignment.matched == IGNORE)[..., None], 0.0, negative).sum() / (count * self.bag_size)
            # a live graph where there are no boxes
            positive = positive.sum() / count + 0 * (logits.sum() + regression.sum())
        return {"positive": Part(positive, self.positive_weight), "negative": Part(negative, self.negative_weight)}

    def _of_bags(self, logits: Tensor, regression: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor, coder: Any) -> Tensor:
        """The positive loss of each box of an image, (n,)."""
        size = min(self.bag_size, len(anchors))
        bag = _pairwise_iou(boxes, anchors).topk(size, 1).indices
        of_bag, own = anchors[bag].flatten(0, 1), boxes[:, None].expand(-1, size, 4).flatten(0, 1)
        offsets = regression[bag].flatten(0, 1)
        if self.localization.compares == "boxes":
            error = self.localization.elementwise(coder.decode(offsets, of_bag), own)
        else:
            error = self.localization.elementwise(offsets, coder.encode(own, of_bag)).sum(-1)
        return negative_log_mean_max(logits[bag, labels[:, None]], self.localization_weight * error.view(bag.shape))

    @torch.no_grad()
    def matched_share(self, predicted: Float[Tensor, "a 4"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n a"]:
        """How surely each predicted box belongs to each true one, in [0, 1]: a straight line between ``threshold`` and ``saturation``."""
        iou = _pairwise_iou(boxes, predicted)
        top = iou.amax(1, keepdim=True) if self.saturation is None else iou.new_full((), self.saturation)
        return ((iou - self.threshold) / (top - self.threshold).clamp(min=SMALLEST_REST)).clamp(0, 1)


def negative_log_mean_max(logits: Float[Tensor, "n k"], error: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """``-log(mean-max(P))`` over each row, with ``P = sigmoid(logit) exp(-error)``; in log-space, where small P lose no digits.

    Example:
        >>> negative_log_mean_max(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.6931])
    """
    log_p = -softplus(-logits) - error
    log_rest = torch.log((-torch.expm1(log_p)).clamp(min=SMALLEST_REST))
    return torch.logsumexp(-log_rest, 1) - torch.logsumexp(log_p - log_rest, 1)


def focal_of_unmatched(logits: Float[Tensor, "*shape"], matched: Float[Tensor, "*shape"], gamma: float) -> Float[Tensor, "*shape"]:
    """``-q^gamma log(1 - q)`` with ``q = sigmoid(logit) (1 - matched)``: the focal loss of what belongs to no box.

    Example:
        >>> focal_of_unmatched(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]), 2.0)
        tensor([0.1733, 0.0180, 0.0000])
    """
    # 1 - q = (1 - p) (1 + m e^x)
    loss = softplus(logits) - softplus(logits + torch.log(matched))
    return loss * torch.exp(gamma * (torch.log1p(-matched) - softplus(-logits))) if gamma else loss


def _pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(n, m), 0 where two boxes without area meet, or one that is inverted."""
    shared = pairwise_intersection(boxes, others)
    union = box_area(boxes)[:, None] + box_area(others) - shared
    return torch.where(union > 0, shared / torch.where(union > 0, union, 1.0), 0.0)
