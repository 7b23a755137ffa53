"""One process of two: ``python torchvision_worker.py RANK FOLDER`` takes a step with its half of four images and writes the gradients.

The test imports ``detector`` and ``batch`` from here.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from lossbox.integrations.torchvision import use

SIZE, CLASSES = 64, 3
LOSSES = ("rank_sort", "alrp", "ap")


def body():
    """One level, stride 8: a step takes milliseconds."""
    layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()]
    backbone = nn.Sequential(*layers)
    backbone.out_channels = 32
    return backbone


def detector(name, seed=0):
    torch.manual_seed(seed)
    sizes = {"min_size": SIZE, "max_size": SIZE}
    squares = AnchorGenerator(((16, 24, 32),), ((0.5, 1.0, 2.0),))
    if name == "retinanet":
        return RetinaNet(body(), CLASSES + 1, anchor_generator=squares, **sizes)
    if name == "fcos":
        return FCOS(body(), CLASSES + 1, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), **sizes)
    if name == "ssd":
        boxes = DefaultBoxGenerator([[2, 3]], scales=[0.3, 0.5], steps=[8])
        backbone = body()
        backbone.out_channels = [32]
        return SSD(backbone, boxes, (SIZE, SIZE), CLASSES + 1, head=None, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    region = {"box_roi_pool": MultiScaleRoIAlign(["0"], 3, 2), "box_head": TwoMLPHead(32 * 9, 64)}
    region["box_predictor"] = FastRCNNPredictor(64, CLASSES + 1)
    limits = {"rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 30, "box_batch_size_per_image": 32}
    return FasterRCNN(body(), rpn_anchor_generator=squares, **region, **sizes, **limits)


def batch(count=4):
    """Images of a bright square each, one of them without."""
    generator = torch.Generator().manual_seed(1)
    images, targets = [], []
    for i in range(count):
        image = torch.rand(3, SIZE, SIZE, generator=generator) * 0.3
        x, y = torch.randint(0, SIZE - 24, (2,), generator=generator).tolist()
        box = torch.tensor([[x, y, x + 24, y + 20]], dtype=torch.float)
        image[i % CLASSES, y : y + 20, x : x + 24] = 1.0
        empty = i == 3
        images.append(image)
        targets.append({"boxes": box[:0] if empty else box, "labels": torch.tensor([] if empty else [1 + i % CLASSES], dtype=torch.int64)})
    return images, targets


def gradients(name, loss, images, targets, wrap=lambda model: model):
    model = detector(name)
    use(model, loss)
    parallel = wrap(model)
    losses = parallel(images, targets)
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    images, targets = batch(6)
    share = slice(3 * rank, 3 * rank + 3)  # process 1 has one image without boxes
    found = {}
    for name, loss in (("retinanet", "rank_sort"), ("fcos", "alrp"), ("ssd", "ap")):
        found[name, loss] = gradients(name, loss, images[share], targets[share], nn.parallel.DistributedDataParallel)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()
