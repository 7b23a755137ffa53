"""torchvision's SSDlite trained with Rank & Sort: one line more than without."""

import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from lossbox.integrations.torchvision import use

torch.manual_seed(0)
model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
use(model, "rank_sort")

images = torch.rand(2, 3, 320, 320) * 0.3
images[0, 0, 50:150, 60:200] = 1.0
images[1, 1, 150:290, 100:250] = 1.0
targets = [
    {"boxes": torch.tensor([[60.0, 50.0, 200.0, 150.0]]), "labels": torch.tensor([1])},
    {"boxes": torch.tensor([[100.0, 150.0, 250.0, 290.0]]), "labels": torch.tensor([2])},
]
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
for step in range(3):
    losses = model(list(images), targets)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    print(f"step {step}", {name: round(value.item(), 3) for name, value in losses.items()})
