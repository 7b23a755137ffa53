"""Images of the embedded data set: handwritten digits pasted on crops of photographs, with their tight boxes.

Everything is drawn from a generator that the caller seeds; nothing is written. ``lossbox.data.digits`` writes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

VISIBLE = 0.25
"""A pixel belongs to a digit, and its box is drawn around it, from this share of ink on."""

VAL_SHARE_OF_SCANS = 0.2
VAL_SHARE_OF_COLUMNS = 1 / 3
"""The right third of each photograph is the background of the validation part alone."""

MIN_CONTRAST = 60
"""Ink and ground count as distinct where their luma differs by this much, of 255."""

MAX_CLASH = 0.25
"""A place is given up where the best ink is closer than ``MIN_CONTRAST`` to more than this share of the ground."""

MAX_OVERLAP = 0.1
"""The largest part of a digit's box that another box may cover."""

PLACES_TRIED = 12
INKS_TRIED = 8
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Ingredients:
    """What the images of one part are made from.

    Attributes:
        scans: (k, 8, 8) ink from 0 to 255, one array for each of the digits 0 to 9.
        backgrounds: (h, w, 3) RGB in [0, 255], one photograph or more.
    """

    scans: list[UInt8[np.ndarray, "_ 8 8"]]
    backgrounds: list[UInt8[np.ndarray, "_ _ 3"]]


def load_ingredients(seed: int = 0) -> dict[str, Ingredients]:
    """Scans and backgrounds of ``"train"`` and ``"val"``, which have nothing in common.

    Args:
        seed: of the split of the scans. The photographs are cut at one column, whatever the seed.

    Returns:
        Four fifths of each digit's scans and the left two thirds of the photographs for ``"train"``, the rest for ``"val"``.

    Example:
        >>> ingredients = load_ingredients()
        >>> len(ingredients["train"].scans[7]), len(ingredients["val"].scans[7]), ingredients["val"].backgrounds[0].shape
        (143, 36, (427, 213, 3))
    """
    try:
        import PIL.Image  # noqa: F401  scikit-learn's own message would not name our extra
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ImportError("the digits need scikit-learn and Pillow: pip install 'lossbox[train]'") from error
    digits = load_digits()
    scans = np.round(digits.images * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng([seed, 2])
    ingredients: dict[str, Ingredients] = {part: Ingredients([], []) for part in ("train", "val")}
    for digit in range(10):
        of_digit = rng.permutation(scans[digits.target == digit])
        cut = round(len(of_digit) * VAL_SHARE_OF_SCANS)
        ingredients["val"].scans.append(of_digit[:cut])
        ingredients["train"].scans.append(of_digit[cut:])
    for photograph in load_sample_images().images:
        column = round(photograph.shape[1] * (1 - VAL_SHARE_OF_COLUMNS))
        ingredients["train"].backgrounds.append(photograph[:, :column])
        ingredients["val"].backgrounds.append(photograph[:, column:])
    return ingredients


def draw_image(
    rng: np.random.Generator,
    ingredients: Ingredients,
    *,
    size: int = 128,
    max_digits: int = 6,
    digit_side: tuple[float, float] = (0.11, 0.5),
    imbalance: float = 1.0,
) -> tuple[UInt8[np.ndarray, "s s 3"], list[tuple[int, int, int, int]], list[int]]:
    """One image, the boxes of its digits and the digits.

    Args:
        rng: all random choices come from it.
        ingredients: of the part that the image is for.
        size: width and height in pixels.
        max_digits: most digits; 0 gives the background alone. A digit that finds no free place of enough contrast is left out.
        digit_side: smallest and largest height of a digit, as shares of ``size``.
        imbalance: how many times as often as a 9 a 0 is drawn, the others between them in equal ratios.

    Returns:
        (size, size, 3) RGB in [0, 255]; boxes ``x y width height`` in whole pixels, tight around the pixels of at least ``VISIBLE`` ink
        (also where a later digit covers some of them); the digits 0 to 9.
    """
    image = _background(rng, ingredients.backgrounds, size)
    boxes: list[tuple[int, int, int, int]] = []
    digits: list[int] = []
    for _ in range(int(rng.integers(1, max_digits + 1)) if max_digits else 0):
        digit = int(rng.integers(10) if imbalance == 1 else rng.choice(10, p=long_tail(imbalance)))
        scan = ingredients.scans[digit][int(rng.integers(len(ingredients.scans[digit])))]
        side = size * digit_side[0] * (digit_side[1] / digit_side[0]) ** float(rng.random())
        alpha = digit_alpha(scan, height=side, aspect=1.25 ** float(rng.uniform(-1, 1)))
        box = _paste(rng, image, alpha, boxes)
        if box is not None:
            boxes.append(box)
            digits.append(digit)
    return np.round(image).astype(np.uint8), boxes, digits


def long_tail(imbalance: float, classes: int = 10) -> Float[np.ndarray, " c"]:
    """The shares of an exponential profile: ``share(k) ~ imbalance^(-k / (c - 1))``, the first class the most frequent.

    Args:
        imbalance: the first share divided by the last, >= 1.
        classes: c, at least 2.

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019, Sec. 5.1: long-tailed CIFAR.

    Example:
        >>> long_tail(4.0, 3).round(3).tolist()
        [0.571, 0.286, 0.143]
    """
    shares = imbalance ** (-np.arange(classes) / (classes - 1))
    return np.asarray(shares / shares.sum())


def digit_alpha(scan: UInt8[np.ndarray, "8 8"], *, height: float, aspect: float = 1.0) -> Float[np.ndarray, "h w"]:
    """A scan as a smooth mask of ink, cut to where it has any.

    Args:
        scan: (8, 8) ink from 0 to 255.
        height: of the whole scan after scaling, in pixels; most digits fill it.
        aspect: width over height of the whole scan after scaling.

    Returns:
        (h, w) share of ink in [0, 1]; no row or column at the rim is all zero.
    """
    from PIL import Image

    # One empty row around the scan lets strokes at its rim fade out; the steep ramp makes them crisp at any size.
    rim = 10 / 8
    target = (max(round(height * aspect * rim), 1), max(round(height * rim), 1))
    smooth = Image.fromarray(np.pad(scan, 1)).resize(target, Image.Resampling.BICUBIC)
    alpha = np.clip((np.asarray(smooth, dtype=np.float32) / 255 - 0.35) / 0.3, 0, 1)
    x, y, width, height_of_ink = tight_box(alpha, threshold=1e-6)
    return alpha[y : y + height_of_ink, x : x + width]


def tight_box(alpha: Float[np.ndarray, "h w"], *, threshold: float = VISIBLE) -> tuple[int, int, int, int]:
    """The smallest box around the pixels of at least ``threshold``.

    Args:
        alpha: (h, w) share of ink in [0, 1].
        threshold: in (0, 1].

    Returns:
        ``x y width height`` in whole pixels: the pixel in column c covers c to c + 1. All zero where no pixel reaches the threshold.

    Example:
        >>> tight_box(np.array([[0.0, 0.1, 0.0], [0.0, 0.9, 0.3]]))
        (1, 1, 2, 1)
    """
    inked = alpha >= threshold
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _background(rng: np.random.Generator, backgrounds: list[UInt8[np.ndarray, "_ _ 3"]], size: int) -> Float[np.ndarray, "s s 3"]:
    """A square crop of one of the photographs, half to one and a half times as large as the image, mirrored half of the time."""
    from PIL import Image

    photograph = backgrounds[int(rng.integers(len(backgrounds)))]
    largest = min(1.5 * size, *photograph.shape[:2])
    side = int(rng.uniform(min(0.5 * size, largest), largest))
    y, x = (int(rng.integers(extent - side + 1)) for extent in photograph.shape[:2])
    cut = Image.fromarray(photograph[y : y + side, x : x + side])
    crop = np.array(cut.resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def _paste(
    rng: np.random.Generator, image: Float[np.ndarray, "s s 3"], alpha: Float[np.ndarray, "h w"], boxes: list[tuple[int, int, int, int]]
) -> tuple[int, int, int, int] | None:
    """Blends one digit into ``image`` and returns its box, or None (and the image untouched) if no place was good enough."""
    height, width = alpha.shape
    inner_x, inner_y, box_width, box_height = tight_box(alpha)
    if height > image.shape[0] or width > image.shape[1] or box_width == 0:
        return None
    for _ in range(PLACES_TRIED):
        x, y = int(rng.integers(image.shape[1] - width + 1)), int(rng.integers(image.shape[0] - height + 1))
        box = (x + inner_x, y + inner_y, box_width, box_height)
        if any(_covered(box, other) > MAX_OVERLAP for other in boxes):
            continue
        ground = image[y : y + height, x : x + width]
        inks = rng.integers(0, 256, (INKS_TRIED, 3)).astype(np.float32)
        ground_luma = (ground.reshape(-1, 3) @ LUMA)[:: max(height * width // 256, 1)]
        clash = (np.abs((inks @ LUMA)[:, None] - ground_luma) < MIN_CONTRAST).mean(1)
        best = int(clash.argmin())
        if clash[best] <= MAX_CLASH:
            ground += alpha[..., None] * (inks[best] - ground)
            return box
    return None


def _covered(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Intersection over the smaller of two boxes ``x y width height``."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0) / min(box[2] * box[3], other[2] * other[3])
