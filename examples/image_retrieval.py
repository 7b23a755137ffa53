"""Image retrieval: every image of a batch is a query, and ranks the others by how similar their embeddings are.

Each row of the matrix of similarities is a ranking of its own: its positives are the images of the same class, and the query itself is
ignored. `groups="row"` makes all rankings in one call; nothing larger than the matrix is made.
"""

import torch
from torch.nn.functional import normalize

from lossbox.losses import ap_loss

torch.manual_seed(0)
classes = torch.arange(32).repeat_interleave(4)  # 32 objects, 4 photographs each
objects = torch.cat([3 * torch.randn(32, 4), torch.zeros(32, 60)], 1)  # what tells them apart is a small part of what is seen
seen, unseen = objects[classes] + torch.randn(128, 64), objects[classes] + torch.randn(128, 64)
network = torch.nn.Linear(64, 8)
optimizer = torch.optim.Adam(network.parameters(), 0.01)
targets = (classes[:, None] == classes).long().fill_diagonal_(-1)


def similarities(images):
    embeddings = normalize(network(images))
    return embeddings @ embeddings.T


for step in range(60):
    loss = ap_loss(similarities(seen), targets, delta=0.05, groups="row")  # delta in units of a cosine
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0 or step == 59:
        error = ap_loss(similarities(unseen).detach(), targets, delta=0, groups="row")
        print(f"step {step}: 1 - mean average precision of other photographs {error:.3f}")
