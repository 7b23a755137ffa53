"""The shapes in the types hold: a fresh process checks the annotated calls of a walk through the package, and finds a wrong one."""

import subprocess
import sys
import textwrap

WALK = """
import torch
from lossbox import losses, boxes
from lossbox.assignment import ATSSAssigner, OverlapAssigner, SampledAssigner
from lossbox.decoding import Decoder
from lossbox.detectors import Backbone, FasterRCNN, RetinaNet, add_true_boxes
from lossbox.metrics import Evaluator
from lossbox.losses import IoULoss
from lossbox.objective import ALRPObjective, SeparateObjective, weighted_sum
from lossbox.records import Targets

logits, targets = torch.randn(4, 50, requires_grad=True), torch.randint(-1, 2, (4, 50))
values = torch.rand(int((targets == 1).sum()))
losses.ap_loss(logits, targets, interpolated=True).backward()
losses.ndcg_loss(logits, targets).backward()
sum(losses.alrp_loss(logits, targets, values)).backward()
sum(losses.rank_sort_loss(logits, targets, values)).backward()
losses.error_driven_loss(logits, targets, lambda r: r.sum_above(r.scores * 0 + 1) / r.rank, 0.0, pmf=losses.skewed_pmf()).backward()
balance = losses.SelfBalance()
balance.update(torch.tensor(0.5), torch.tensor(0.2), counts=torch.tensor(True))
balance(torch.tensor(0.2))
balance.end_period()

truth = Targets(torch.tensor([[4.0, 4.0, 40.0, 44.0]]), torch.tensor([1]), torch.tensor([False]), 1, (64, 64), (64, 64))
empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool), 2, (64, 60), (64, 60))
detector = RetinaNet(3, backbone=Backbone(stages=2, strides=(8, 16), channels=16), head_convs=1)
raw = detector(torch.rand(2, 3, 64, 64))
for assigner in (ATSSAssigner(), OverlapAssigner()):
    for objective in (ALRPObjective(), ALRPObjective(IoULoss()), SeparateObjective()):
        weighted_sum(objective(raw, assigner(raw, [truth, empty]), [truth, empty])).backward(retain_graph=True)
found = Decoder(score_threshold=0.0)(raw, [(64, 64), (64, 60)])
two_stages = FasterRCNN(
    3, backbone=Backbone(stages=2, strides=(8, 16), channels=16), region_levels=2, head_channels=8, max_proposals=9
)
proposed = two_stages.propose(torch.rand(2, 3, 64, 64))
refined = two_stages.refine(proposed.features, add_true_boxes(proposed.boxes, [truth, empty]))
sampled = SampledAssigner(OverlapAssigner(allow_low_quality_matches=False))(refined, [truth, empty])
weighted_sum(ALRPObjective()(refined, sampled, [truth, empty])).backward()
Decoder(score_threshold=0.0)(refined, [(64, 64), (64, 60)])
ground_truth = {
    "images": [{"id": 1, "width": 64, "height": 64, "file_name": "a"}, {"id": 2, "width": 60, "height": 64, "file_name": "b"}],
    "categories": [{"id": i, "name": str(i)} for i in (1, 2, 3)],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [4, 4, 36, 40], "area": 1440, "iscrowd": 0}],
}
evaluator = Evaluator(ground_truth)
evaluator.update([1, 2], found)
evaluator.compute()
"""

HOOK = "from jaxtyping import install_import_hook\ninstall_import_hook('lossbox', 'beartype.beartype')\n"


def checked(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HOOK + textwrap.dedent(script)], capture_output=True, text=True)


def test_a_walk_through_the_package_keeps_every_shape():
    result = checked(WALK)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_wrong_shape_is_found():
    result = checked("import torch\nfrom lossbox.boxes import paired_iou\npaired_iou(torch.zeros(2, 4), torch.zeros(3, 4))")
    assert result.returncode != 0
    assert "TypeCheckError" in result.stderr
