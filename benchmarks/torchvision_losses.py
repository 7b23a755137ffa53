"""torchvision's RetinaNet on the digits: its own loss (focal and L1) beside ours, put in by ``lossbox.integrations.torchvision.use``.

    lossbox digits && python benchmarks/torchvision_losses.py

ResNet-18 with a pyramid of 64 channels on three levels, from random weights, the same steps, batches and rates for all; on one thread. The
weights after the last step count, evaluated by ``lossbox.metrics`` on the validation images with the score threshold at 0.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from small import DETECTIONS, NUMBERS, RESULTS, coco_results, parts
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from lossbox import metrics
from lossbox.data.module import CocoDataModule
from lossbox.data.transforms import Augmentation
from lossbox.integrations.torchvision import use
from lossbox.programs.compare import machine
from lossbox.training import WarmupCosine


def detector(classes: int, size: int) -> RetinaNet:
    levels = {"layer2": "0", "layer3": "1", "layer4": "2"}
    backbone = BackboneWithFPN(resnet18(weights=None), levels, [128, 256, 512], 64)
    backbone.fpn.extra_blocks = None
    anchors = AnchorGenerator(((16, 24), (32, 48), (64, 96)), ((1.0,),) * 3)
    limits: dict[str, Any] = {"min_size": size, "max_size": size, "score_thresh": 0.0, "detections_per_img": DETECTIONS}
    return RetinaNet(backbone, classes, anchor_generator=anchors, **limits)


def measure(loss: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(seed)
    augmentation = Augmentation(horizontal_flip=0.0, scale_jitter=(0.7, 1.4))
    data = CocoDataModule(**parts(options.folder), image_size=options.size, batch_size=16, seed=seed, augmentation=augmentation)
    loader = data.train_dataloader()
    model = detector(data.num_classes + 1, options.size).train().to(memory_format=torch.channels_last)
    if loss != "torchvision":
        use(model, loss)
    optimizer, schedule = WarmupCosine(learning_rate=1e-3)(model, options.steps)
    step, start = 0, time.process_time()
    while step < options.steps:
        for batch in loader:
            images = [image[:, : one.size[0], : one.size[1]] for image, one in zip(batch.images, batch.targets, strict=True)]
            losses = model(images, [{"boxes": one.boxes, "labels": one.labels + 1} for one in batch.targets])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 25 == 0:
                spent = time.process_time() - start
                print(f"{loss} seed {seed}: step {step}/{options.steps}, {spent / 60:.1f} CPU minutes", flush=True)
            if step == options.steps:
                break
    minutes = (time.process_time() - start) / 60
    model.eval()
    detections: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch in data.val_dataloader():
            for image, one in zip(batch.images, batch.targets, strict=True):
                found = model([image[:, : one.size[0], : one.size[1]]])[0]
                real = found["labels"] > 0  # the column of the background has no box in the data
                factor = torch.tensor([one.original_size[1] / one.size[1], one.original_size[0] / one.size[0]]).repeat(2)
                labels = [data.category_ids[label - 1] for label in found["labels"][real].tolist()]
                detections += coco_results(one.image_id, (found["boxes"][real] * factor).tolist(), found["scores"][real].tolist(), labels)
    truth = metrics.read_ground_truth(options.folder / "val.json")
    numbers = metrics.evaluate(truth, metrics.read_results(detections, truth))
    row = {"loss": loss, "seed": seed, "steps": options.steps, "cpu_minutes": minutes} | {key: numbers[key] for key in NUMBERS}
    print(f"{loss} seed {seed}: AP {row['AP']:.3f}, oLRP {row['oLRP']:.3f}, {minutes:.1f} CPU minutes", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("data/digits"))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--losses", nargs="+", default=["rank_sort", "torchvision", "alrp", "ap"], help="torchvision is its own")
    parser.add_argument("--steps", type=int, default=500, help="of 16 images (default 500)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "torchvision_losses.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = {
        "what": "torchvision's RetinaNet, ResNet-18, on the digits; equal steps of 16 images of 128 px",
        "command": "python benchmarks/torchvision_losses.py",
        "machine": machine(),
        "rows": [],
    }
    for seed in options.seeds:
        for loss in options.losses:
            report["rows"].append(measure(loss, seed, options))
            options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
