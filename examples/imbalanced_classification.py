"""Imbalanced binary classification: average precision is what counts, so it is what is minimized.

One row in a hundred is positive. The loss ranks the whole training set in each step, which costs about as much as cross-entropy; with
several labels per row, `groups="class"` would rank each of them by itself.
"""

import torch

from lossbox.losses import ap_loss

torch.manual_seed(0)
rows = torch.randn(20_000, 8)
odds = 2 * rows[:, 0] + rows[:, 1] * rows[:, 2] - 6.5
targets = (torch.rand(20_000) < odds.sigmoid()).long()
train, test = slice(0, 10_000), slice(10_000, None)
network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
optimizer = torch.optim.Adam(network.parameters(), 0.01)

print(f"positives: {targets.float().mean():.2%}")
for step in range(101):
    loss = ap_loss(network(rows[train]).squeeze(1), targets[train])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        with torch.no_grad():
            error = ap_loss(network(rows[test]).squeeze(1), targets[test], delta=0)
        print(f"step {step}: average precision on the test half {1 - error:.3f}")
