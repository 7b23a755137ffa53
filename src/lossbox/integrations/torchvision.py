"""A loss of ours in torchvision's detectors: RetinaNet, FCOS, SSD and SSDlite, Faster R-CNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from ..boxes import DeltaCoder
from ..losses import ALRPLoss, GIoULoss, RankSortLoss
from ..losses._checks import may_check
from ..objective import ALRPObjective, Objective, Part, RankSortObjective, SeparateObjective, WithCenterness
from ..objective.positives import mean_over_processes
from ..records import BACKGROUND, IGNORE, Assignment, BoxCoder, RawPredictions, Targets
from ._scores import find_loss, log_odds, warn_of_version

TESTED = ("0.29.1",)
"""The versions of torchvision that the tests ran with."""

Loss = str | Callable[..., Any] | nn.Module


def use(model: nn.Module, loss: Loss, *, rpn: Loss | None = None) -> nn.Module:
    """Train a detector of torchvision with a loss of ours. Its anchors, matching, inference and weights stay as they are.

    ``model(images, targets)`` in training mode returns the names it always had, with the weighted parts of our loss as their values. In a
    distributed job a ranking loss ranks the images of all processes as one.

    A loss of class scores alone is joined by GIoU loss of the decoded boxes. After a ranking loss its weight is that of aLRP's
    self-balance, taken from each step by itself: ``(L_cls + L_loc) / L_loc``; Rank & Sort has its own, ``(ranking + sorting) / L_loc``;
    after the others it is 1. For other weights give a ``lossbox.objective.Objective``; the self-balance of the aLRP paper, that of an
    epoch, is ``ALRPObjective()``, whose ``end_epoch()`` must then be called after each.

    SSD and the second stage of Faster R-CNN end in a softmax with a background class. There the loss gets the log-odds ``log(p / (1 -
    p))`` of every class but the background, which are in the order of the scores at inference. The sampling of negatives that belongs to
    cross-entropy does not take place, but for the proposals of Faster R-CNN: ``box_batch_size_per_image`` of them reach the loss.

    A ranking loss puts scores in order but not at a level: set ``score_thresh`` to 0 where detections go missing.

    Args:
        model: RetinaNet, FCOS, SSD or FasterRCNN of ``torchvision.models.detection``, possibly inside DistributedDataParallel.
        loss: "rank_sort", "alrp", "ap" or another name of the catalog; a function or module of ``lossbox.losses``; an ``Objective``.
        rpn: of Faster R-CNN, the same for the region proposals; None leaves torchvision's. Every anchor that is not between the
            thresholds is ranked, and boxes are compared in the frame of their anchor, where IoU and GIoU are what they are in the image.

    Returns:
        The same model, which is changed.

    Raises:
        ValueError: a model or head that the adapter does not know, a loss that does not fit.

    Example:
        >>> from torchvision.models.detection import RetinaNet
        >>> from torchvision.models.detection.anchor_utils import AnchorGenerator
        >>> backbone = nn.Conv2d(3, 8, 16, 16)
        >>> backbone.out_channels = 8
        >>> model = RetinaNet(backbone, 3, min_size=64, max_size=64, anchor_generator=AnchorGenerator(((32,),), ((1.0,),)))
        >>> model = use(model, "rank_sort")
        >>> sorted(model([torch.rand(3, 64, 64)], [{"boxes": torch.tensor([[10.0, 10.0, 40.0, 50.0]]), "labels": torch.tensor([2])}]))
        ['bbox_regression', 'classification']
    """
    from torchvision.models import detection
    from torchvision.models.detection.fcos import FCOSHead
    from torchvision.models.detection.retinanet import RetinaNetHead
    from torchvision.models.detection.ssd import SSD

    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    warn_of_version("torchvision", TESTED)
    if rpn is not None and not isinstance(inner, detection.FasterRCNN):
        raise ValueError(f"rpn: only Faster R-CNN has region proposals, the model is a {type(inner).__name__}")
    if isinstance(inner, detection.FasterRCNN):
        if type(inner) is not detection.FasterRCNN:
            raise ValueError(f"model: a FasterRCNN expected, got its subclass {type(inner).__name__}, which has more losses")
        objective, proposals = _objective(loss), None if rpn is None else _objective(rpn, "rpn")
        _train_second_stage(inner.roi_heads, objective)
        if proposals is not None:
            _train_first_stage(inner.rpn, proposals)
    elif isinstance(inner, SSD):
        _train_dense(inner, _objective(loss), inner.box_coder, softmax=True)
    elif isinstance(inner, (detection.RetinaNet, detection.FCOS)):
        expected = RetinaNetHead if isinstance(inner, detection.RetinaNet) else FCOSHead
        if type(inner.head).compute_loss is not expected.compute_loss:
            raise ValueError(f"model: a head with the loss of {expected.__name__} expected, got {type(inner.head).__name__}")
        objective = _objective(loss)
        if expected is FCOSHead and not isinstance(objective, WithCenterness):
            objective = WithCenterness(objective)
        _train_dense(inner.head, objective, inner.box_coder)
    else:
        raise ValueError(f"model: RetinaNet, FCOS, SSD or FasterRCNN of torchvision expected, got {type(inner).__name__}")
    return model


class _BalancedEachStep(Objective):
    """An objective whose box loss weighs ``(L_cls + L_loc) / L_loc`` of the same step, over all processes."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, predictions: RawPredictions, assignment: Assignment, targets: list[Targets]) -> dict[str, Part]:
        parts: dict[str, Part] = self.objective(predictions, assignment, targets)
        both = torch.stack([parts["classification"].value, parts["localization"].value]).detach()
        classification, localization = mean_over_processes(both, training=self.training)
        known = localization > 0
        weight = torch.where(known, (classification + localization) / torch.where(known, localization, 1.0), 1.0)
        return parts | {"localization": Part(parts["localization"].value, weight)}


def _objective(loss: Loss, name: str = "loss") -> Objective:
    if isinstance(loss, Objective):
        return loss
    module = find_loss(loss, name)
    if isinstance(module, (RankSortLoss, ALRPLoss)):
        defaults = type(module)().options()
        others = {name: value for name, value in module.options().items() if name != "delta" and value != defaults[name]}
        if others:
            raise ValueError(f"{name}: no objective takes {others} of {type(module).__name__}; delta is the one option that it takes")
        if isinstance(module, RankSortLoss):
            return RankSortObjective(delta=module.delta)
        return _BalancedEachStep(ALRPObjective(delta=module.delta, self_balance=False))
    separate = SeparateObjective(module, GIoULoss())
    return _BalancedEachStep(separate) if module.family == "ranking" else separate


def _train_dense(owner: Any, objective: Objective, coder: Any, *, softmax: bool = False) -> None:
    """Replaces ``compute_loss`` of a head, or of SSD itself."""

    def compute_loss(
        self: nn.Module, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], matched: list[Tensor]
    ) -> dict[str, Tensor]:
        logits, centerness = outputs["cls_logits"], outputs.get("bbox_ctrness")
        if softmax:
            logits = log_odds(logits)[..., 1:]
        _check_labels(targets, smallest=int(softmax), classes=logits.shape[-1])
        boxes = [_targets(target["boxes"], target["labels"] - int(softmax)) for target in targets]
        raw = RawPredictions(
            logits,
            outputs["bbox_regression"],
            torch.stack(anchors),
            (logits.shape[1],),
            _Coder(coder),
            None if centerness is None else centerness.squeeze(-1),
        )
        scores, box, rest = _loss(objective, raw, torch.stack(list(matched)), boxes)
        return {"classification": scores, "bbox_regression": box} | ({} if centerness is None else {"bbox_ctrness": rest})

    owner.compute_loss = MethodType(compute_loss, owner)


def _train_second_stage(heads: Any, objective: Objective) -> None:
    """Replaces ``forward`` of the heads on the regions, in training mode only."""

    def forward(
        self: Any, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]], targets: Any = None
    ) -> Any:
        if not self.training:
            return type(self).forward(self, features, proposals, image_shapes, targets)
        proposals, _, labels, offsets = self.select_training_samples(proposals, targets)
        logits, regression = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        _check_labels(targets, smallest=1, classes=logits.shape[1] - 1)
        label, boxes = torch.cat(labels), torch.cat(proposals)
        own = regression.unflatten(1, (-1, 4)).gather(1, label.clamp(min=0)[:, None, None].expand(-1, 1, 4)).squeeze(1)
        coder = _Coder(self.box_coder)
        matched, target = _match(label, coder, torch.cat(offsets), boxes)
        raw = RawPredictions(log_odds(logits)[None, :, 1:], own[None], boxes[None], (len(boxes),), coder)
        scores, box, _ = _loss(objective, raw, matched[None], [target])
        return [], {"loss_classifier": scores, "loss_box_reg": box}

    heads.forward = MethodType(forward, heads)


def _train_first_stage(rpn: Any, objective: Objective) -> None:
    """Replaces ``compute_loss`` of the region proposals, which is not told the anchors: all boxes lie about a unit square."""
    coder = DeltaCoder(std=tuple(1 / weight for weight in rpn.box_coder.weights))

    def compute_loss(
        self: Any, objectness: Tensor, regression: Tensor, labels: list[Tensor], offsets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        images, anchors = len(labels), len(labels[0])
        square = regression.new_tensor([[-0.5, -0.5, 0.5, 0.5]]).float().expand(anchors, 4)
        matched, targets = zip(
            *(_match(*of_image, square) for of_image in zip(labels, [coder] * images, offsets, strict=True)), strict=True
        )
        raw = RawPredictions(objectness.view(images, anchors, 1), regression.view(images, anchors, 4), square, (anchors,), coder)
        scores, box, _ = _loss(objective, raw, torch.stack(matched), list(targets))
        return scores, box

    rpn.compute_loss = MethodType(compute_loss, rpn)


def _check_labels(targets: list[dict[str, Tensor]], *, smallest: int, classes: int) -> None:
    """The labels are those of classes that the model has: on a CPU always, elsewhere under ``debug_checks``."""
    for index, labels in enumerate(target["labels"] for target in targets):
        if may_check(labels) and len(wrong := labels[(labels < smallest) | (labels >= smallest + classes)]):
            rule = f"from {smallest} to {smallest + classes - 1} expected, as the model has {classes} classes"
            raise ValueError(f"targets[{index}]['labels']: {rule}, got {int(wrong[0])}")


def _match(labels: Tensor, coder: BoxCoder, offsets: Tensor, anchors: Tensor) -> tuple[Tensor, Targets]:
    """Labels (1 and up positive, 0 background, -1 ignored) and offsets of n anchors as a matching with one box for each positive."""
    positive = labels > 0
    matched = torch.where(positive, positive.cumsum(0) - 1, torch.where(labels < 0, IGNORE, BACKGROUND))
    return matched, _targets(coder.decode(offsets[positive], anchors[positive]), labels[positive].long() - 1)


def _targets(boxes: Tensor, labels: Tensor) -> Targets:
    return Targets(boxes, labels, torch.zeros_like(labels, dtype=torch.bool), 0, (0, 0), (0, 0))


def _loss(objective: Objective, raw: RawPredictions, matched: Tensor, targets: list[Targets]) -> tuple[Tensor, Tensor, Tensor]:
    """The weighted parts: of the scores, of the boxes, of the centerness."""
    parts = objective.to(raw.logits.device)(raw, Assignment(matched), targets)
    weighted = {name: part.weight * part.value for name, part in parts.items()}
    box, centerness = weighted.pop("localization"), weighted.pop("centerness", raw.logits.new_zeros(()))
    return torch.stack(list(weighted.values())).sum(), box, centerness


@dataclass(frozen=True)
class _Coder:
    """A box coder of torchvision as one of ours."""

    coder: Any

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        if hasattr(self.coder, "encode_single"):
            offsets: Tensor = self.coder.encode_single(boxes, anchors)
        else:  # FCOS's coder takes them the other way round
            offsets = self.coder.encode(anchors, boxes)
        return offsets

    def decode(self, regression: Tensor, anchors: Tensor) -> Tensor:
        decode = getattr(self.coder, "decode_single", self.coder.decode)
        boxes: Tensor = decode(regression.float() if regression.dtype != torch.float64 else regression, anchors)
        return boxes
