"""One process of two: ``python transformers_worker.py RANK FOLDER`` takes a step with its half of four images and writes the gradients.

The tests import ``detector`` and ``batch`` from here.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers
from torch import nn

from lossbox.integrations.transformers import use

SIZE, CLASSES = 64, 3


def detector(name, seed=0, **options):
    """A tiny model with random weights: two decoder layers, 12 queries."""
    torch.manual_seed(seed)
    common = {"num_labels": CLASSES, "num_queries": 12, "d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}
    common |= {"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "encoder_attention_heads": 4, "encoder_layers": 1}
    real_time = {"encoder_hidden_dim": 32, "encoder_in_channels": [32, 48, 64], "decoder_in_channels": [32, 32, 32], "num_denoising": 8}
    real_time |= {"freeze_backbone_batch_norms": False, **common}
    stages = {"stage_in_channels": [16, 16, 32, 48], "stage_mid_channels": [16] * 4, "stage_out_channels": [16, 32, 48, 64]}
    stages |= {
        "hidden_sizes": [16, 32, 48, 64],
        "embedding_size": 16,
        "stem_channels": [3, 16, 16],
        "stage_num_blocks": [1] * 4,
        "stage_numb_of_layers": [1] * 4,
    }
    if name in ("d_fine", "deimv2"):
        body = transformers.HGNetV2Config(out_features=["stage2", "stage3", "stage4"], **stages)
        kind = transformers.DFineConfig if name == "d_fine" else transformers.Deimv2Config
        head = transformers.DFineForObjectDetection if name == "d_fine" else transformers.Deimv2ForObjectDetection
        return head(kind(backbone_config=body, **(real_time | options)))
    if name in ("rt_detr", "rt_detr_v2"):
        widths = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
        body = transformers.RTDetrResNetConfig(out_features=["stage2", "stage3", "stage4"], **widths)
        kind = transformers.RTDetrV2Config if name == "rt_detr_v2" else transformers.RTDetrConfig
        head = transformers.RTDetrV2ForObjectDetection if name == "rt_detr_v2" else transformers.RTDetrForObjectDetection
        return head(kind(backbone_config=body, **(real_time | options)))
    widths = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    body = transformers.ResNetConfig(out_features=["stage3"], **widths)
    fixed = {"auxiliary_loss": True, "dropout": 0.0, "backbone_config": body} | common | options
    return transformers.DetrForObjectDetection(transformers.DetrConfig(**fixed))


def batch(count=8):
    """Images of one or two bright rectangles, the third without."""
    generator = torch.Generator().manual_seed(1)
    images, targets = torch.rand(count, 3, SIZE, SIZE, generator=generator) * 0.3, []
    for i in range(count):
        boxes = []
        for j in range(0 if i == 2 else 1 + i % 2):
            x, y = torch.randint(0, SIZE - 28, (2,), generator=generator).tolist()
            images[i, (i + j) % CLASSES, y : y + 20, x : x + 28] = 1.0
            boxes.append([(x + 14) / SIZE, (y + 10) / SIZE, 28 / SIZE, 20 / SIZE])
        labels = torch.tensor([(i + j) % CLASSES for j in range(len(boxes))], dtype=torch.int64)
        targets.append({"class_labels": labels, "boxes": torch.tensor(boxes).view(-1, 4)})
    return images, targets


def gradients(images, targets, loss, global_batch, wrap=lambda model: model):
    """Of plain RT-DETRv2 without denoising, whose noise is drawn, and without the parts of the boxes, which count per process."""
    options = {"num_denoising": 0, "weight_loss_bbox": 0.0, "weight_loss_giou": 0.0, "freeze_backbone_batch_norms": True}
    model = detector("rt_detr_v2", **options).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # its statistics are those of a process
    use(model, loss, global_batch=global_batch)
    wrapped = wrap(model)  # lives until the backward pass is done
    output = wrapped(pixel_values=images, labels=targets)
    output.loss.backward()
    return output.loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    images, targets = batch(4)
    share = slice(2 * rank, 2 * rank + 2)
    parallel = lambda model: nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)  # noqa: E731
    found = {loss: gradients(images[share], targets[share], loss, True, parallel) for loss in ("rank_sort", "ap")}
    torch.save(found, folder / f"{rank}.pt")
    # denoising queries where one process has none: it has no boxes
    model = detector("rt_detr_v2").train()
    use(model, "rank_sort", global_batch=True)
    targets = targets if rank else [{key: value[:0] for key, value in target.items()} for target in targets]
    wrapped = parallel(model)
    wrapped(pixel_values=images, labels=targets).loss.backward()
    dist.destroy_process_group()
