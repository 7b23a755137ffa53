"""How fast each box loss moves boxes onto their targets: no network, no data, the same start, optimizer and choice of step for all.

    python benchmarks/iou_losses.py              writes benchmarks/results/iou_losses.json (a CPU minute or two)

2,000 boxes of 8 to 128 px start moved and stretched away from their targets, in images of 320 px: a third overlap them well, a third
little, a third not at all. Each box is four numbers of a box coder (offset and log size in units of the start, as a detector predicts
them), moved by Adam for 200 steps, its learning rate falling to 0 in a straight line. Each loss has the best of six
learning rates, by its own mean IoU after the last step. The numbers are
the mean IoU and the share of boxes with IoU >= 0.75, after 25, 50, 100 and 200 steps, by kind of start.

It says how a loss pulls on a box that can move freely. It says nothing about a trained detector, where the features limit the box.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossbox.boxes import DeltaCoder, paired_iou
from lossbox.losses import (
    AlphaIoULoss,
    BoundedIoULoss,
    BoxLoss,
    CIoULoss,
    DIoULoss,
    EIoULoss,
    GIoULoss,
    InnerIoULoss,
    IoULoss,
    MPDIoULoss,
    NWDLoss,
    SIoULoss,
    SmoothL1Loss,
    WIoULoss,
)

RESULTS = Path(__file__).parent / "results" / "iou_losses.json"
LOSSES: dict[str, BoxLoss] = {
    "smooth_l1_loss": SmoothL1Loss(beta=1 / 9),
    "iou_loss": IoULoss(),
    "giou_loss": GIoULoss(),
    "diou_loss": DIoULoss(),
    "ciou_loss": CIoULoss(),
    "eiou_loss": EIoULoss(),
    "siou_loss": SIoULoss(),
    "wiou_loss": WIoULoss(),
    "mpdiou_loss": MPDIoULoss(image_size=(320.0, 320.0)),
    "inner_iou_loss, ratio 0.7": InnerIoULoss(ratio=0.7),
    "inner_iou_loss, ratio 1.3": InnerIoULoss(ratio=1.3),
    "alpha_iou_loss": AlphaIoULoss(),
    "bounded_iou_loss": BoundedIoULoss(),
    "nwd_loss": NWDLoss(scale=32.0),
}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
AT = (25, 50, 100, 200)
KINDS = {"near": (0.15, 0.2), "far": (0.6, 0.5), "disjoint": (1.6, 0.5)}
CODER = DeltaCoder((1.0, 1.0, 1.0, 1.0))


def starts(count: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """By kind, the boxes at the start and their targets: moved by so many sizes in a random direction, sides times e^+-so much."""
    g = torch.Generator().manual_seed(seed)
    found = {}
    for kind, (moved, stretched) in KINDS.items():
        size = 8 * 16 ** torch.rand(count, 2, generator=g)
        center = 100 + 120 * torch.rand(count, 2, generator=g)
        angle = 2 * torch.pi * torch.rand(count, 1, generator=g)
        direction = torch.cat([angle.cos(), angle.sin()], 1)
        start_size = size * torch.exp(stretched * (2 * torch.rand(count, 2, generator=g) - 1))
        start = center + direction * moved * (size + start_size) / 2
        first, target = (torch.cat([c - s / 2, c + s / 2], 1) for c, s in ((start, start_size), (center, size)))
        found[kind] = first, target
    return found


def run(loss: BoxLoss, start: Tensor, target: Tensor, rate: float) -> dict[int, Tensor]:
    """The IoU of each box after the steps of ``AT``."""
    moved = torch.zeros_like(start).requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=rate)
    ious = {}
    for step in range(1, max(AT) + 1):
        boxes = CODER.decode(moved, start)
        pair = (boxes, target) if loss.compares == "boxes" else (moved, CODER.encode(target, start))
        optimizer.zero_grad()
        loss.elementwise(*pair).sum().backward()  # each box by itself: the sum does not mix their gradients
        optimizer.step()
        optimizer.param_groups[0]["lr"] = rate * (1 - step / max(AT))
        if step in AT:
            ious[step] = paired_iou(CODER.decode(moved.detach(), start), target)
    return ious


def measure(count: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    problems = starts(count, seed)
    for name, loss in LOSSES.items():
        tried = {rate: {kind: run(loss, *problem, rate) for kind, problem in problems.items()} for rate in RATES}
        best = max(RATES, key=lambda rate: sum(float(ious[max(AT)].mean()) for ious in tried[rate].values()))
        row: dict[str, Any] = {"loss": name, "learning_rate": best}
        for kind, ious in tried[best].items():
            row[kind] = {
                str(step): {"iou": round(float(iou.mean()), 4), "above_0.75": round(float((iou >= 0.75).float().mean()), 4)}
                for step, iou in ious.items()
            }
        rows.append(row)
        last = {kind: row[kind][str(max(AT))]["iou"] for kind in KINDS}
        print(f"{len(rows)}/{len(LOSSES)} {name}: rate {best}, IoU after {max(AT)} steps {last}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=667, help="of each kind of start")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.process_time()
    rows = measure(arguments.boxes, arguments.seed)
    machine = {"machine": platform.machine(), "instruction_set": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}
    content = {**machine, "seed": arguments.seed, "boxes": arguments.boxes, "cpu_seconds": round(time.process_time() - begun), "rows": rows}
    arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
