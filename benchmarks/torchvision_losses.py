"""torchvision's detectors on the digits: their own losses beside ours, put in by ``lossbox.integrations.torchvision.use``.

    lossbox digits && python benchmarks/torchvision_losses.py                   writes benchmarks/results/torchvision_losses.json
    python benchmarks/torchvision_losses.py --detectors ssd --losses alrp       a part; what stands in the file is kept and not repeated

RetinaNet, FCOS, SSD and Faster R-CNN on three levels of a small ResNet with a pyramid of 64 channels, built of torchvision's own classes,
from random weights, on images of 64 px; the same batches, steps and learning rate for all, tuned for none; on one thread. In Faster R-CNN
both stages get the loss. The weights after the last step count, evaluated by ``lossbox.metrics`` with the score threshold at 0.
``fell_to`` is what the sum of the losses of scores is in the last 25 steps, as a share of that in the first 25.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from small import DETECTIONS, NUMBERS, RESULTS, coco_results, parts
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import MultiScaleRoIAlign

from lossbox import metrics
from lossbox.data.module import CocoDataModule
from lossbox.data.transforms import Augmentation
from lossbox.integrations.torchvision import use
from lossbox.programs.compare import machine
from lossbox.training import WarmupCosine

SIZE, CHANNELS, AT_ENDS = 64, 64, 25
LEVELS = ("0", "1", "2")
"""Strides 4, 8 and 16."""


def body() -> BackboneWithFPN:
    """A ResNet of one block a stage, without its last stage."""
    stages = {"layer1": "0", "layer2": "1", "layer3": "2"}
    backbone = BackboneWithFPN(ResNet(BasicBlock, [1, 1, 1, 1]), stages, [64, 128, 256], CHANNELS)
    backbone.fpn.extra_blocks = None
    return backbone


def squares(*sides: tuple[int, ...]) -> AnchorGenerator:
    return AnchorGenerator(sides, ((1.0,),) * len(sides))


def retinanet(classes: int, **limits: Any) -> nn.Module:
    return RetinaNet(body(), classes, anchor_generator=squares((8, 11), (16, 22), (32, 45)), **limits, **EVERYTHING)


def fcos(classes: int, **limits: Any) -> nn.Module:
    return FCOS(body(), classes, anchor_generator=squares((4,), (8,), (16,)), **limits, **EVERYTHING)


def ssd(classes: int, **limits: Any) -> nn.Module:
    boxes = DefaultBoxGenerator([[]] * 3, scales=[0.125, 0.25, 0.5, 0.7], steps=[4, 8, 16])
    head = SSDHead([CHANNELS] * 3, boxes.num_anchors_per_location(), classes)
    return SSD(body(), boxes, (SIZE, SIZE), classes, head=head, **EVERYTHING)


def faster_rcnn(classes: int, **limits: Any) -> nn.Module:
    side = 5
    second: dict[str, Any] = {
        "box_roi_pool": MultiScaleRoIAlign(LEVELS, side, 2),
        "box_head": TwoMLPHead(CHANNELS * side**2, 256),
        "box_predictor": FastRCNNPredictor(256, classes),
        "box_batch_size_per_image": 64,
        "box_score_thresh": 0.0,
        "box_detections_per_img": DETECTIONS,
    }
    few = {"rpn_pre_nms_top_n_train": 200, "rpn_post_nms_top_n_train": 100, "rpn_pre_nms_top_n_test": 200, "rpn_post_nms_top_n_test": 100}
    return FasterRCNN(body(), rpn_anchor_generator=squares((8, 11), (16, 22), (32, 45)), **second, **few, **limits)


EVERYTHING: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": DETECTIONS}
OF_SCORES = {"classification", "loss_classifier", "loss_objectness"}
DETECTORS: dict[str, Callable[..., nn.Module]] = {"retinanet": retinanet, "fcos": fcos, "ssd": ssd, "faster_rcnn": faster_rcnn}


def batches(data: CocoDataModule, steps: int) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]]]]:
    loader, step = data.train_dataloader(), 0
    while True:
        for batch in loader:
            yield list(batch.images), [{"boxes": one.boxes, "labels": one.labels + 1} for one in batch.targets]
            step += 1
            if step == steps:
                return


def train(name: str, loss: str, seed: int, data: CocoDataModule, steps: int) -> tuple[nn.Module, list[float]]:
    """The detector, and the loss of its scores at each step."""
    torch.manual_seed(seed)
    model = DETECTORS[name](data.num_classes + 1, min_size=SIZE, max_size=SIZE).train().to(memory_format=torch.channels_last)
    if loss != "theirs":
        use(model, loss, **({"rpn": loss} if name == "faster_rcnn" else {}))
    optimizer, schedule = WarmupCosine(learning_rate=1e-3)(model, steps)
    history: list[float] = []
    for step, (images, targets) in enumerate(batches(data, steps), 1):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(sum(losses[key].item() for key in OF_SCORES & losses.keys()))
        if step % 50 == 0:
            print(f"{name}, {loss}, seed {seed}: step {step}/{steps}", flush=True)
    return model.eval(), history


@torch.inference_mode()
def detect(model: nn.Module, data: CocoDataModule) -> list[dict[str, Any]]:
    detections: list[dict[str, Any]] = []
    for batch in data.val_dataloader():
        for found, one in zip(model(list(batch.images)), batch.targets, strict=True):
            real = found["labels"] > 0  # the column of the background has no box in the data
            factor = torch.tensor([one.original_size[1] / one.size[1], one.original_size[0] / one.size[0]]).repeat(2)
            labels = [data.category_ids[label - 1] for label in found["labels"][real].tolist()]
            detections += coco_results(one.image_id, (found["boxes"][real] * factor).tolist(), found["scores"][real].tolist(), labels)
    return detections


def measure(name: str, loss: str, seed: int, folder: Path, steps: int) -> dict[str, Any]:
    augmentation = Augmentation(horizontal_flip=0.0, scale_jitter=(0.7, 1.4))
    data = CocoDataModule(**parts(folder), image_size=SIZE, batch_size=16, seed=seed, augmentation=augmentation)
    start = time.process_time()
    model, history = train(name, loss, seed, data, steps)
    minutes = (time.process_time() - start) / 60
    truth = metrics.read_ground_truth(folder / "val.json")
    numbers = metrics.evaluate(truth, metrics.read_results(detect(model, data), truth))
    fell_to = statistics.mean(history[-AT_ENDS:]) / statistics.mean(history[:AT_ENDS])
    row = {"detector": name, "loss": loss, "seed": seed, "steps": steps, "cpu_minutes": minutes, "fell_to": fell_to}
    print(f"{name}, {loss}, seed {seed}: AP {numbers['AP']:.3f}, oLRP {numbers['oLRP']:.3f}, {minutes:.1f} CPU minutes", flush=True)
    return row | {key: numbers[key] for key in NUMBERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("data/digits"))
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    parser.add_argument("--losses", nargs="+", default=["theirs", "rank_sort", "alrp"], help="'theirs' is torchvision's own")
    parser.add_argument("--steps", type=int, default=250, help="of 16 images (default 250, two epochs)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "torchvision_losses.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    report["what"] = "torchvision's detectors with a small ResNet on the digits at 64 px, equal steps of 16 images"
    report["command"] = "python benchmarks/torchvision_losses.py"
    if any(report.setdefault("machine", machine())[key] != machine()[key] for key in ("processor", "instruction_set")):
        raise SystemExit(f"{options.out} holds measurements of another machine or instruction set: name another --out")
    for seed in options.seeds:
        for name in options.detectors:
            for loss in options.losses:
                sought = {"detector": name, "loss": loss, "seed": seed, "steps": options.steps}
                if not any(sought.items() <= row.items() for row in report["rows"]):
                    report["rows"].append(measure(name, loss, seed, options.folder, options.steps))
                    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
