"""Edge detection as in RankED (Cetinkaya et al., CVPR 2024): in every image edges above the rest, certain edges above doubtful ones.

Each image is a ranking of its own, `groups="image"`. Several people drew the edges; the share of them that marked a pixel is its quality.
"""

import torch

from lossbox.losses import rank_sort_loss

torch.manual_seed(0)
certainty = torch.zeros(4, 1, 32, 32)  # what share of the annotators marked a pixel
certainty[:, :, :, 10], certainty[:, :, 20] = 1.0, 0.4
images = certainty.cumsum(-1) / 4 + certainty.cumsum(-2) / 4 + 0.05 * torch.randn(4, 1, 32, 32)
targets = (certainty > 0).long()
network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 3, padding=1))
optimizer = torch.optim.Adam(network.parameters(), 0.01)

for step in range(61):
    logits = network(images)
    loss = rank_sort_loss(logits, targets, certainty[targets == 1], groups="image")
    optimizer.zero_grad()
    (loss.ranking + loss.sorting).backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step}: ranking {loss.ranking:.3f} sorting {loss.sorting:.3f}")
