"""One image with its detections, pixel by pixel as it is stored."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..records import Detections

if TYPE_CHECKING:
    from PIL.Image import Image

GOLDEN_ANGLE = 0.381966
"""The step of hue from one class to the next: any number of classes, and no two neighbors alike."""


def draw_boxes(image: Image, found: Detections, class_names: Sequence[str], *, threshold: float = 0.0) -> Image:
    """A copy of an image with the boxes that were found in it, each with class and score, the best on top.

    Args:
        image: RGB.
        found: boxes in pixels of the image.
        class_names: the name of each label.
        threshold: draw detections with at least this score.

    Returns:
        An image of the same size.

    Example:
        >>> import torch
        >>> from PIL import Image
        >>> found = Detections(torch.tensor([[2., 2., 12., 12.]]), torch.tensor([0.9]), torch.tensor([0]))
        >>> drawn = draw_boxes(Image.new("RGB", (16, 16)), found, ["cup"])
        >>> drawn.getpixel((2, 12)), drawn.size
        ((255, 64, 64), (16, 16))
    """
    from PIL import ImageDraw, ImageFont

    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(1, round(min(image.size) / 250))
    font = ImageFont.load_default(size=max(9, round(min(image.size) / 45)))
    for box, score, label in reversed(list(zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True))):
        if score < threshold:
            continue
        x1, y1, x2, y2 = box
        color = _color(label)
        pen.rectangle((x1, y1, x2, y2), outline=color, width=width)
        text = f"{class_names[label]} {score:.2f}"
        _, _, right, bottom = pen.textbbox((0, 0), text, font=font)
        # above the box, or inside it where the image ends
        y = y1 - bottom - 1 if y1 - bottom - 1 >= 0 else y1
        pen.rectangle((x1, y, x1 + right + 2, y + bottom + 1), fill=color)
        pen.text((x1 + 1, y), text, fill="black", font=font)
    return drawn


def _color(label: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_ANGLE % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
