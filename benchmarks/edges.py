"""Edge detection as in RankED: a ranking loss per image, sorted by the annotators' certainty, beside weighted cross-entropy and Dice loss.

    python benchmarks/edges.py       writes benchmarks/results/edges.json

Images of 64 px with drawn ellipses and bars of weak and strong contrast, under noise. Five annotators draw the border of each shape a
little beside where it is, and leave out a shape the sooner the weaker its contrast. The same small network, images, steps and optimizer
for all losses, the learning rate of each chosen of two by the AP of the first seed; the figures are those of the second and third seed.

``ap`` and ``ods`` (the best F over one threshold for all images) compare the predicted map pixel by pixel with what at least half of the
annotators marked, without thinning and without a tolerance in place; ``correlation`` is that of score and certainty over the marked
pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lossbox.losses import ap_loss, rank_sort_loss
from lossbox.programs.compare import machine

SIZE, ANNOTATORS, BATCH = 64, 5, 8
RATES = (3e-3, 1e-2)


def level(center: np.ndarray, radii: np.ndarray, angle: float, power: int, shift: np.ndarray, grow: float) -> np.ndarray:
    """At each pixel how far out of a turned superellipse it is: 1 on its border."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    u, v = x - center[0] - shift[0], y - center[1] - shift[1]
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    return (np.abs(along / (radii[0] + grow)) ** power + np.abs(across / (radii[1] + grow)) ** power) ** (1 / power)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image (1, s, s) and the share of the annotators that marked each pixel, (s, s)."""
    image, marks = np.zeros((SIZE, SIZE), np.float32), np.zeros((ANNOTATORS, SIZE, SIZE), bool)
    for _ in range(rng.integers(2, 6)):
        center, radii, angle, power = rng.uniform(10, 54, 2), rng.uniform(5, 18, 2), rng.uniform(0, np.pi), rng.choice([2, 6])
        shape = partial(level, center, radii, angle, power)
        contrast = rng.uniform(0.1, 1) * rng.choice([-1, 1])
        inside = shape(np.zeros(2), 0.0) <= 1
        image = np.where(inside, contrast, image)
        for one in range(ANNOTATORS):
            marks[one] &= ~inside  # what lies behind is hidden
            if rng.random() < 0.3 + abs(contrast):
                drawn = shape(rng.normal(0, 0.25, 2), rng.normal(0, 0.15)) <= 1
                marks[one] |= drawn & ~(np.roll(drawn, 1, 0) & np.roll(drawn, -1, 0) & np.roll(drawn, 1, 1) & np.roll(drawn, -1, 1))
    return (image + rng.normal(0, 0.15, image.shape)).astype(np.float32)[None], marks.mean(0).astype(np.float32)


def part(count: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    images, certainty = zip(*(draw(rng) for _ in range(count)), strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(certainty))


def rank_sort(logits: Tensor, certainty: Tensor) -> Tensor:
    targets = (certainty > 0).long()
    terms = rank_sort_loss(logits, targets, certainty[targets == 1], groups="image")
    return terms.ranking + terms.sorting


def average_precision(logits: Tensor, certainty: Tensor) -> Tensor:
    return ap_loss(logits, (certainty > 0).long(), groups="image")


def cross_entropy(logits: Tensor, certainty: Tensor) -> Tensor:
    """Of HED and RCF: the two classes of an image weigh the same; pixels that less than half of the annotators marked are left out."""
    positive, negative = certainty >= 0.5, certainty == 0
    share = positive.sum((1, 2), keepdim=True) / (positive | negative).sum((1, 2), keepdim=True)
    weight = torch.where(positive, 1 - share, torch.where(negative, 1.1 * share, 0.0))
    return binary_cross_entropy_with_logits(logits, positive.float(), weight=weight, reduction="sum") / len(logits) / 100


def dice(logits: Tensor, certainty: Tensor) -> Tensor:
    """Of Deng et al., Learning to Predict Crisp Boundaries, ECCV 2018: squares in the denominator."""
    p, y = logits.sigmoid(), (certainty >= 0.5).float()
    return 1 - (2 * (p * y).sum((1, 2)) / ((p**2).sum((1, 2)) + (y**2).sum((1, 2))).clamp(min=1)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rank_sort": rank_sort,
    "ap": average_precision,
    "weighted_bce": cross_entropy,
    "dice": dice,
}


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, dilation in ((1, 1), (16, 1), (16, 2), (16, 4)):
        layers += [nn.Conv2d(before, 16, 3, padding=dilation, dilation=dilation, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 1))


def figures(scores: Tensor, certainty: Tensor) -> dict[str, float]:
    s, truth = scores.flatten(), certainty.flatten() >= 0.5
    found = truth[s.argsort(descending=True)].double().cumsum(0)
    precision, recall = found / torch.arange(1, len(s) + 1), found / found[-1]
    marked = certainty.flatten() > 0
    order = torch.stack([x[marked].argsort().argsort().double() for x in (s, certainty.flatten())])
    f = (2 * precision * recall / (precision + recall).clamp(min=1e-9)).max()
    ap = (precision * torch.diff(recall, prepend=recall.new_zeros(1))).sum()
    return {"ap": float(ap), "ods": float(f), "correlation": float(torch.corrcoef(order)[0, 1])}


def measure(loss: str, rate: float, seed: int, steps: int) -> dict[str, Any]:
    (images, certainty), test = part(400, seed), part(100, 1000)
    torch.manual_seed(seed)
    model, start = network(), time.process_time()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (BATCH,))
        value = LOSSES[loss](model(images[chosen])[:, 0], certainty[chosen])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    minutes = (time.process_time() - start) / 60
    with torch.inference_mode():
        scores = model.eval()(test[0])[:, 0]
    row = {"loss": loss, "learning_rate": rate, "seed": seed, "steps": steps, "cpu_minutes": minutes, **figures(scores, test[1])}
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES), help="a part; what is in the file is kept")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "edges.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"summary": [], "rows": []}
    report |= {"command": "python benchmarks/edges.py", "machine": machine()}

    def trained(loss: str, rate: float, seed: int) -> dict[str, Any]:
        sought = {"loss": loss, "learning_rate": rate, "seed": seed, "steps": options.steps}
        found: list[dict[str, Any]] = [row for row in report["rows"] if sought.items() <= row.items()]
        if not found:
            found = [measure(loss, rate, seed, options.steps)]
            report["rows"] += found
            options.out.write_text(json.dumps(report, indent=2) + "\n")
        return found[0]

    for loss in options.losses:
        rate = max(RATES, key=lambda rate: trained(loss, rate, 0)["ap"])
        rows = [trained(loss, rate, seed) for seed in (1, 2)]
        means = {key: statistics.mean(row[key] for row in rows) for key in ("ap", "ods", "correlation")}
        others = [row for row in report["summary"] if row["loss"] != loss]
        report["summary"] = [*others, {"loss": loss, "learning_rate": rate, "seeds": len(rows), **means}]
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
