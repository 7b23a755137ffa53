"""What our elementwise losses cost beside torch's, torchvision's and fvcore's own, where they have the same loss.

    python benchmarks/losses.py                 writes benchmarks/results/losses.json
    python benchmarks/losses.py --device cuda

Forward + backward of the sum at a million elements (logits, coordinates, or 250,000 pairs of boxes). The two take turns in one process, so
that a slow moment of the machine hits both; the median of the rounds counts, and the ratio to the other library is what to look at. Values
are compared first: a faster loss that says something else is not faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torchvision import ops

from lossbox import losses

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore uses torch.jit.script
    import fvcore.nn as fvcore

RESULTS = Path(__file__).parent / "results"
ELEMENTS = 10**6
CLASSES = 80
TARGET = 1.2


class Pair(NamedTuple):
    """Our loss and another library's, which are called alike: input that takes a gradient, target."""

    name: str
    library: str
    inputs: str
    ours: Callable[[Tensor, Tensor], Tensor]
    theirs: Callable[[Tensor, Tensor], Tensor]


def half_mse_loss(x: Tensor, target: Tensor, *, reduction: str) -> Tensor:
    """torch has no loss of half the square; ours is that of R-CNN."""
    return F.mse_loss(x, target, reduction=reduction) / 2


PAIRS = (
    Pair("sigmoid_cross_entropy_loss", "torch", "logits", losses.sigmoid_cross_entropy_loss, F.binary_cross_entropy_with_logits),
    Pair("softmax_cross_entropy_loss", "torch", "rows", losses.softmax_cross_entropy_loss, F.cross_entropy),
    Pair("focal_loss", "torchvision", "logits", losses.focal_loss, ops.sigmoid_focal_loss),
    Pair("focal_loss", "fvcore", "logits", losses.focal_loss, partial(fvcore.sigmoid_focal_loss, alpha=0.25)),
    Pair("l1_loss", "torch", "offsets", losses.l1_loss, F.l1_loss),
    Pair("l2_loss", "torch", "offsets", losses.l2_loss, half_mse_loss),
    Pair("smooth_l1_loss", "torch", "offsets", losses.smooth_l1_loss, F.smooth_l1_loss),
    Pair("smooth_l1_loss", "fvcore", "offsets", losses.smooth_l1_loss, partial(fvcore.smooth_l1_loss, beta=1.0)),
    Pair("giou_loss", "torchvision", "boxes", losses.giou_loss, ops.generalized_box_iou_loss),
    Pair("giou_loss", "fvcore", "boxes", losses.giou_loss, fvcore.giou_loss),
    Pair("diou_loss", "torchvision", "boxes", losses.diou_loss, ops.distance_box_iou_loss),
    Pair("ciou_loss", "torchvision", "boxes", losses.ciou_loss, ops.complete_box_iou_loss),
)


def problem(inputs: str, device: str) -> tuple[Tensor, Tensor]:
    """A million elements of input and target."""
    generator = torch.Generator().manual_seed(0)
    if inputs == "boxes":
        corner = torch.rand(ELEMENTS // 4, 2, generator=generator) * 500
        target = torch.cat([corner, corner + 10 + torch.rand(ELEMENTS // 4, 2, generator=generator) * 100], 1)
        x = target + torch.rand(target.shape, generator=generator) * 8
    elif inputs == "rows":
        x = torch.randn(ELEMENTS // CLASSES, CLASSES, generator=generator)
        target = torch.randint(CLASSES, (len(x),), generator=generator)
    else:
        x = torch.randn(ELEMENTS, generator=generator)
        target = (torch.rand(ELEMENTS, generator=generator) < 0.01).float() if inputs == "logits" else torch.zeros(ELEMENTS)
    return x.to(device).requires_grad_(), target.to(device)


def seconds(loss: Callable[..., Tensor], x: Tensor, target: Tensor) -> float:
    x.grad = None
    start = time.perf_counter()
    loss(x, target, reduction="sum").backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(pair: Pair, device: str, rounds: int) -> dict[str, Any]:
    x, target = problem(pair.inputs, device)
    torch.testing.assert_close(pair.ours(x, target, reduction="none"), pair.theirs(x, target, reduction="none"), rtol=1e-3, atol=1e-4)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for series, loss in zip(times, (pair.ours, pair.theirs), strict=True):
            series.append(seconds(loss, x, target))
    ours, theirs = (1e3 * statistics.median(series[2:]) for series in times)
    return {"loss": pair.name, "library": pair.library, "ours_ms": ours, "theirs_ms": theirs, "ratio": ours / theirs}


def markdown(report: dict[str, Any]) -> str:
    """The table of the docs: milliseconds of the other library's loss, and ours as a multiple of it."""
    lines = ["| loss | beside | its ms | ours |", "|---|---|---|---|"]
    lines += [f"| {row['loss']} | {row['library']} | {row['theirs_ms']:.1f} | {row['ratio']:.2f} x |" for row in report["rows"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=101, help="how often each loss takes its turn (default 101)")
    parser.add_argument("--out", type=Path, help="the JSON file (default benchmarks/results/losses.json, losses_cuda.json on a GPU)")
    options = parser.parse_args()
    rows = [measure(pair, options.device, options.rounds) for pair in track(PAIRS, "measuring")]
    report = {
        "command": "make bench",
        "device": options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "elements": ELEMENTS,
        "rounds": options.rounds,
        "target": TARGET,
        "rows": rows,
    }
    print(markdown(report))
    for row in rows:
        if row["ratio"] > TARGET:
            print(f"target missed: {row['loss']} is not within {TARGET} x {row['library']}")
    out = options.out or RESULTS / ("losses.json" if options.device == "cpu" else f"losses_{options.device}.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
