"""One process of two: ``python step_worker.py RANK FOLDER`` trains on its share of every batch under DistributedDataParallel.

Writes ``<RANK>.pt``: task -> what each step came to. The test imports ``run`` from here for one process and the whole batches.
"""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lossbox.assignment import ATSSAssigner, OverlapAssigner
from lossbox.data.module import CocoDataModule
from lossbox.decoding import Decoder
from lossbox.detectors import FCOS, Backbone, FasterRCNN, RetinaNet
from lossbox.losses import APLoss, GIoULoss, NDCGLoss, SelfBalance
from lossbox.metrics import Evaluator
from lossbox.objective import ALRPObjective, RankSortObjective, SeparateObjective, WithCenterness, weighted_sum
from lossbox.records import Batch, Targets
from lossbox.training import DetectionTask, FirstStage, WarmupCosine

# Boxes in the images of the first and of the second process: one batch a step. An epoch ends after the first two.
STEPS = (((2, 1), (3,)), ((2, 0), (0,)), ((0,), (1, 1)), ((0,), (0, 0)))
EPOCH_ENDS_AFTER = 2
SMALL = {"backbone": Backbone(stages=2, strides=(8, 16), channels=8)}
dense = partial(RetinaNet, 3, **SMALL, head_convs=1)
ap = partial(SeparateObjective, localization=GIoULoss(), self_balance=True)

TASKS = {
    "alrp": lambda: (dense(), ALRPObjective()),
    "rank_sort": lambda: (dense(), RankSortObjective()),
    "ap": lambda: (dense(), ap(APLoss(delta=0.5))),
    "ndcg": lambda: (dense(), ap(NDCGLoss(delta=0.5))),
    "focal": lambda: (dense(), SeparateObjective(self_balance=True)),
    "centerness": lambda: (FCOS(3, **SMALL, head_convs=1), WithCenterness(ALRPObjective())),
    "two stages": lambda: (
        FasterRCNN(3, **SMALL, region_levels=2, head_channels=8, max_proposals=9),
        RankSortObjective(),
        FirstStage(OverlapAssigner(0.7, 0.3), ALRPObjective(tau=0.7), 0.5),
    ),
}
BOTH, DOUBLE, SINGLE = (torch.float64, torch.float32), (torch.float64,), (torch.float32,)
DTYPES = dict.fromkeys(TASKS, DOUBLE) | {"alrp": BOTH, "rank_sort": BOTH, "two stages": SINGLE}  # no NMS of float64 boxes


class Step(nn.Module):
    """The weighted total of a batch, and its parts."""

    def __init__(self, detection):
        super().__init__()
        self.detection = detection

    def forward(self, images, targets):
        losses = self.detection.losses(Batch(images, targets))
        values, weights = ({name: part[i] for name, part in losses.parts.items()} for i in (0, 1))
        return weighted_sum(losses.parts), values, weights


def batches(dtype):
    """For each step the images and targets of each rank."""
    generator = torch.Generator().manual_seed(1)
    number = 0
    for step in STEPS:
        shares = []
        for counts in step:
            targets = []
            for count in counts:
                corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 36
                boxes = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 16], 1)
                labels = torch.randint(0, 3, (count,), generator=generator)
                targets.append(Targets(boxes.to(dtype), labels, torch.zeros(count, dtype=torch.bool), number, (64, 64), (64, 64)))
                number += 1
            shares.append((torch.rand(len(counts), 3, 64, 64, generator=generator, dtype=torch.float64).to(dtype), targets))
        yield shares


def run(name, dtype, rank=None):
    """What each step of a task came to: on the share of a rank, or in one process on all of it."""
    torch.manual_seed(0)
    detector, objective, *first_stage = TASKS[name]()
    assigner = ATSSAssigner() if hasattr(detector, "head") and not first_stage else OverlapAssigner(0.4, 0.3)
    detection = DetectionTask(detector, assigner, objective, Decoder(), WarmupCosine(), first_stage=first_stage[0] if first_stage else None)
    step = Step(detection.to(dtype)).train()
    detector.eval()  # batch norm over a rank's own images would not be that over all
    model = step if rank is None else DistributedDataParallel(step)
    optimizer = torch.optim.SGD(step.parameters(), lr=1e-3, momentum=0.9)
    found = []
    for index, shares in enumerate(batches(dtype)):
        images, targets = shares[rank] if rank is not None else (torch.cat([s[0] for s in shares]), [t for s in shares for t in s[1]])
        optimizer.zero_grad()
        total, parts, weights = model(images, targets)
        total.backward()
        gradients = {key: p.grad.clone() for key, p in step.named_parameters()}
        optimizer.step()
        if index + 1 == EPOCH_ENDS_AFTER:
            objective.end_epoch()
            if first_stage:
                first_stage[0].objective.end_epoch()
        found.append(
            {
                "parts": {key: part.detach() for key, part in parts.items()},
                "weights": {key: torch.as_tensor(weight).clone() for key, weight in weights.items()},
                "gradients": gradients,
                "parameters": {key: p.detach().clone() for key, p in step.named_parameters()},
                "balance": [[b.clone() for b in m.buffers()] for m in step.modules() if isinstance(m, SelfBalance)],
            }
        )
    # a validation: on the first rank alone
    if not rank:
        step.eval()
        images, targets = next(batches(dtype))[0]
        with torch.no_grad():
            found.append({key: part.clone() for key, part in step(images, targets)[1].items()})
    return found


def validate_tiles(root):
    """What a detector finds in the tiles of the images of this process's share, measured over all processes."""
    torch.manual_seed(0)
    val = {"val_annotations": root / "val.json", "val_images": root / "val"}
    data = CocoDataModule(root / "no", root / "no", **val, image_size=64, batch_size=5, tile=64)
    model = RetinaNet(10, **SMALL, head_convs=1)
    task = DetectionTask(model, ATSSAssigner(), ALRPObjective(), Decoder(score_threshold=0.001, max_detections=9), WarmupCosine()).eval()
    evaluator, loader = Evaluator(data.val_ground_truth), data.val_dataloader()
    if dist.is_initialized():  # as Lightning does in a distributed run
        loader = DataLoader(
            loader.dataset, loader.batch_size, sampler=DistributedSampler(loader.dataset, shuffle=False), collate_fn=loader.collate_fn
        )
    with torch.no_grad():
        for batch in loader:
            found = task.in_images(task.detect(batch.images, [t.size for t in batch.targets]), batch.targets)
            evaluator.update(list(found), list(found.values()))
    return evaluator.results()


def main(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {(name, dtype): run(name, dtype, rank) for name in TASKS for dtype in DTYPES[name]}
    torch.save(found | {"tiles": validate_tiles(folder)}, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
