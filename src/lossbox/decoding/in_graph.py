"""The decoder as one graph of tensors of fixed shape, up to non-maximum suppression, for files that run without Python."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..records import RawPredictions
from .decoder import Decoder, class_scores


class Candidates(nn.Module):
    """What a :class:`Decoder` would suppress: boxes cut at the border of one image, and scores that are 0 where they are no candidates.

    Args:
        detector: images -> RawPredictions.
        decoder: its thresholds and ``top_k_per_level`` are applied; not its ``nms_threshold`` and ``max_detections``.
        example: (1, 3, H, W), an image of the size that the graph is made for; run once.

    Raises:
        ValueError: a decoder that looks at neighboring cells (``peak_window``), or thresholds of another number of classes.
    """

    cuts: Tensor | None

    def __init__(self, detector: nn.Module, decoder: Decoder, example: Float[Tensor, "1 3 h w"]) -> None:
        super().__init__()
        if decoder.peak_window > 1:
            raise ValueError(f"nms: a decoder without peak_window expected, got {decoder.peak_window}; export without suppression")
        self.detector, self.decoder = detector, decoder
        with torch.no_grad():
            predictions: RawPredictions = detector(example)
        self.register_buffer("cuts", decoder.cuts(predictions.logits))

    def forward(
        self, images: Float[Tensor, "1 3 h w"], size: Int[Tensor, 2]
    ) -> tuple[Float[Tensor, "a 4"], Float[Tensor, "c a"], Float[Tensor, 4]]:
        """The candidates of one image that was scaled to fit into h x w and lies at the top left.

        Args:
            images: RGB in [0, 1].
            size: height and width of the original.

        Returns:
            ``x1 y1 x2 y2`` in pixels of the scaled image; scores of each class; factors from these pixels to those of the original.
        """
        predictions: RawPredictions = self.detector(images)
        boxes = predictions.coder.decode(predictions.regression, predictions.anchors)[0]
        scores = class_scores(predictions.logits, predictions.centerness)[0]
        canvas, original = torch.tensor(images.shape[-2:], dtype=torch.float64), size.double()
        fitted = (original * (canvas / original).min()).round().clamp(min=1)
        limits = fitted.flip(0).repeat(2).to(boxes.dtype)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        enough = scores > self.decoder.score_threshold
        if self.cuts is not None:
            enough = enough & (scores >= self.cuts)
        levels = []
        for level in torch.split(torch.where(enough, scores, 0.0), list(predictions.level_sizes)):
            if level.numel() > self.decoder.top_k_per_level:
                least = level.flatten().topk(self.decoder.top_k_per_level).values[-1]
                level = torch.where(level >= least, level, 0.0)
            levels.append(level)
        scores = torch.where(real[:, None], torch.cat(levels), 0.0)
        return boxes, scores.T.contiguous(), (original / fitted).flip(0).repeat(2).to(boxes.dtype)
