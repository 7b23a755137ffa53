"""What one training step costs, beside torchvision's own detectors.

    python benchmarks/step.py                    RetinaNet and Faster R-CNN at 320 px, writes benchmarks/results/step.json
    python benchmarks/step.py --quick            small images and heads, three rounds, writes nothing
    python benchmarks/step.py --device cuda --size 640 --batch 8 --backbone resnet50

Ours: aLRP (on both stages of Faster R-CNN, all anchors, all proposals). Theirs: focal loss + L1, and cross-entropy + L1 on a sample.
Backbone, pyramid, anchors per place, widths, images, boxes, precision and optimizer are the same; the pyramid is a copy of ours, and
torchvision's resizing is switched off. A step is forward, loss, backward and SGD; the two take turns in one process, and the median of the
rounds counts. The share of the loss is that of its forward and backward up to the predictions, on the predictions of such a step, and
that of the assignment is stated beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.progress import track
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection import RetinaNet as TheirRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from lossbox.assignment import OverlapAssigner
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, FasterRCNN, RetinaNet, add_true_boxes
from lossbox.objective import ALRPObjective, weighted_sum
from lossbox.records import Batch, RawPredictions, Targets
from lossbox.training import DetectionTask, FirstStage, WarmupCosine
from lossbox.training.precision import resolve

RESULTS = Path(__file__).parent / "results"
CLASSES = 80
RATIOS = (0.5, 1.0, 2.0)


class Levels(nn.Module):
    """A copy of our pyramid as torchvision wants a backbone."""

    def __init__(self, pyramid: nn.Module, channels: int) -> None:
        super().__init__()
        self.pyramid = copy.deepcopy(pyramid)
        self.pyramid.normalize = lambda images: images  # type: ignore[assignment]  # torchvision's detectors normalize images themselves
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), level) for i, level in enumerate(self.pyramid(images)))


def retinanet(options: argparse.Namespace) -> tuple[DetectionTask, nn.Module]:
    strides, scales = (8, 16, 32, 64, 128), (1.0, 2**0.5)
    ours = RetinaNet(CLASSES, backbone=Backbone(options.backbone, strides=strides, channels=options.channels), scales=scales, ratios=RATIOS)
    sizes = tuple(tuple(4 * stride * scale for scale in scales) for stride in strides)
    theirs = TheirRetinaNet(
        Levels(ours.pyramid, options.channels),
        CLASSES,
        anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(strides)),
        _skip_resize=True,
    )
    return DetectionTask(ours, OverlapAssigner(), ALRPObjective(), Decoder(), WarmupCosine()), theirs


def faster_rcnn(options: argparse.Namespace) -> tuple[DetectionTask, nn.Module]:
    strides, hidden = (4, 8, 16, 32, 64), 4 * options.channels
    ours = FasterRCNN(CLASSES, backbone=Backbone(options.backbone, strides=strides, channels=options.channels), head_channels=hidden)
    theirs = TheirFasterRCNN(
        Levels(ours.pyramid, options.channels),
        None,
        rpn_anchor_generator=AnchorGenerator(tuple((8 * stride,) for stride in strides), (RATIOS,) * len(strides)),
        rpn_pre_nms_top_n_train=1000,
        rpn_post_nms_top_n_train=1000,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2),
        box_head=TwoMLPHead(options.channels * 7**2, hidden),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(hidden, CLASSES + 1),
        _skip_resize=True,
    )
    first = FirstStage(OverlapAssigner(0.7, 0.3), ALRPObjective(tau=0.7), 0.2)
    return DetectionTask(
        ours, OverlapAssigner(0.5, 0.5, allow_low_quality_matches=False), ALRPObjective(), Decoder(), WarmupCosine(), first_stage=first
    ), theirs


PAIRS: dict[str, Callable[[argparse.Namespace], tuple[DetectionTask, nn.Module]]] = {"RetinaNet": retinanet, "Faster R-CNN": faster_rcnn}


def random_batch(options: argparse.Namespace) -> Batch:
    generator, size = torch.Generator().manual_seed(0), options.size
    images = torch.rand(options.batch, 3, size, size, generator=generator)
    targets = []
    for i in range(options.batch):
        corner = torch.rand(7, 2, generator=generator) * size * 0.6
        boxes = torch.cat([corner, corner + size * (0.05 + 0.3 * torch.rand(7, 2, generator=generator))], -1)
        labels = torch.randint(0, CLASSES, (7,), generator=generator)
        targets.append(Targets(boxes, labels, torch.zeros(7, dtype=torch.bool), i, (size, size), (size, size)))
    return Batch(images, targets).to(options.device)


def seconds(work: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def our_loss(model: DetectionTask, batch: Batch) -> Tensor:
    return weighted_sum(model.losses(batch).parts)


def their_loss(model: nn.Module, batch: Batch, first_label: int) -> Tensor:
    targets = [{"boxes": target.boxes, "labels": target.labels + first_label} for target in batch.targets]
    return torch.stack(list(model(list(batch.images), targets).values())).sum()


def loss_calls(model: DetectionTask, batch: Batch) -> list[tuple[Any, Any, RawPredictions, list[Targets]]]:
    """Assigner, objective, predictions (cut off from the network) and targets of each stage."""
    detector: Any = model.detector
    if model.first_stage is None:
        stages = [(model.assigner, model.objective, detector(batch.images), batch.targets)]
    else:
        found, objects = detector.propose(batch.images), [target.of_one_class() for target in batch.targets]
        refined = detector.refine(found.features, add_true_boxes(found.boxes, batch.targets))
        first = (model.first_stage.assigner, model.first_stage.objective, found.predictions, objects)
        stages = [first, (model.assigner, model.objective, refined, batch.targets)]
    return [
        (assigner, objective, replace(raw, logits=leaf(raw.logits), regression=leaf(raw.regression)), targets)
        for assigner, objective, raw, targets in stages
    ]


def leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_()


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both steps, their ratio, and the shares of loss and assignment in ours."""
    torch.manual_seed(0)
    device, batch = options.device, random_batch(options)
    ours, theirs = (model.to(device).train() for model in PAIRS[name](options))
    first_label = int(name == "Faster R-CNN")  # torchvision's Faster R-CNN keeps 0 for the background, its RetinaNet does not
    losses = {"ours": (ours, lambda: our_loss(ours, batch)), "torchvision": (theirs, lambda: their_loss(theirs, batch, first_label))}

    def step(model: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bf16-mixed"):
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    # a rate so small that the networks stay what they are
    optimizers = {key: torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9) for key, (model, _) in losses.items()}
    for key, (model, loss) in losses.items():
        step(model, loss, optimizers[key])
    times: dict[str, list[float]] = {key: [] for key in losses}
    for _ in track(range(options.rounds), f"{name}: steps", transient=True, disable=not sys.stdout.isatty()):
        for key, (model, loss) in losses.items():
            times[key].append(seconds(lambda m=model, f=loss, o=optimizers[key]: step(m, f, o), device))  # type: ignore[misc]

    with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bf16-mixed"):
        calls = loss_calls(ours, batch)
    assigning, losing = [], []
    for _ in range(options.rounds):
        assignments: list[Any] = []
        assigning.append(seconds(lambda into=assignments: into.extend(a(raw, t) for a, _, raw, t in calls), device))  # type: ignore[misc]

        def loss_of_stages(given: list[Any] = assignments) -> None:
            for (_, objective, raw, targets), assignment in zip(calls, given, strict=True):
                weighted_sum(objective(raw, assignment, targets)).backward()

        losing.append(seconds(loss_of_stages, device))
    medians = {key: statistics.median(series) for key, series in times.items()}
    return {
        "ours_ms": 1e3 * medians["ours"],
        "torchvision_ms": 1e3 * medians["torchvision"],
        "ratio": medians["ours"] / medians["torchvision"],
        "loss_share": statistics.median(losing) / medians["ours"],
        "assignment_share": statistics.median(assigning) / medians["ours"],
        "parameters": {key: sum(parameter.numel() for parameter in model.parameters()) for key, (model, _) in losses.items()},
        "all_ms": {key: [round(1e3 * value, 2) for value in series] for key, series in times.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="resnet18", help="of both (default resnet18)")
    parser.add_argument("--size", type=int, default=320, help="pixels of a side of the images (default 320)")
    parser.add_argument("--batch", type=int, default=4, help="images per step (default 4)")
    parser.add_argument("--channels", type=int, default=256, help="of pyramid and heads (default 256)")
    parser.add_argument("--rounds", type=int, default=10, help="how often each takes its turn (default 10)")
    parser.add_argument("--precision", default="auto", choices=["auto", "32-true", "bf16-mixed"], help="default auto: what is fast here")
    parser.add_argument("--quick", action="store_true", help="128 px, 2 images, 64 channels, 3 rounds; write no file")
    parser.add_argument("--out", type=Path, help="the JSON file (default benchmarks/results/step.json, step_cuda.json on a GPU)")
    options = parser.parse_args()
    options.precision = resolve(options.precision, options.device)
    if options.quick:
        options.size, options.batch, options.channels, options.rounds = 128, 2, 64, 3
    rows = {}
    print(f"{'':14}{'ours':>10}{'torchvision':>14}{'ratio':>8}{'loss':>8}{'assignment':>12}")
    for name in PAIRS:
        row = rows[name] = measure(name, options)
        shares = f"{row['loss_share']:8.1%}{row['assignment_share']:12.1%}"
        print(f"{name:14}{row['ours_ms']:7.0f} ms{row['torchvision_ms']:11.0f} ms{row['ratio']:8.2f}{shares}")
    if options.quick:
        return
    cuda = options.device == "cuda"
    processor = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    report = {
        "what": "one training step (forward, loss, backward, SGD) in milliseconds, medians; shares are of our step",
        "problem": {key: getattr(options, key) for key in ("backbone", "size", "batch", "channels", "rounds", "precision")}
        | {"classes": CLASSES},
        "machine": {
            "device": options.device,
            "processor": processor,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "detectors": rows,
    }
    path = options.out or RESULTS / ("step_cuda.json" if cuda else "step.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
