"""The ranking losses as the papers write them: float64, O(n^2), loops welcome. Written to be read, not to be fast.

Every function returns the value(s) and the gradient with respect to the logits for an upstream gradient of 1.
"""

import torch


def step(x, delta):
    if delta == 0:
        return (x >= 0).double()
    return (x / (2 * delta) + 0.5).clamp(0, 1)


class Reference:
    """All pairs: H of positive i (row) against positives k and negatives j (columns)."""

    def __init__(self, logits, targets, delta):
        self.shape, flat = logits.shape, logits.detach().double().reshape(-1)
        self.positive = (targets.reshape(-1) == 1).nonzero().squeeze(1)
        self.negative = (targets.reshape(-1) == 0).nonzero().squeeze(1)
        self.size, self.delta, self.scores = len(flat), delta, flat[self.positive]
        self.above_negative = step(flat[self.negative][None, :] - self.scores[:, None], delta)
        self.above_positive = step(self.scores[None, :] - self.scores[:, None], delta)
        self.others = self.above_positive.clone().fill_diagonal_(0)
        self.false_positives = self.above_negative.sum(1)
        self.true_positives = 1 + self.others.sum(1)
        self.rank = self.true_positives + self.false_positives

    def gradient(self, update, normalizer, mass=None):
        """Algorithm 1: dx_ij = -update_i p(j|i); dL/ds_i = 1/Z (sum_j dx_ij - sum_j dx_ji)."""
        gradient = torch.zeros(self.size, dtype=torch.float64)
        weighted = self.above_negative if mass is None else self.above_negative * mass[self.negative]
        for i in range(len(self.positive)):
            total = weighted[i].sum()
            if total > 0:
                dx = -update[i] * weighted[i] / total
                gradient[self.positive[i]] += dx.sum() / normalizer
                gradient[self.negative] -= dx / normalizer
        return gradient.reshape(self.shape)


def ap(logits, targets, delta, interpolated=False):
    r = Reference(logits, targets, delta)
    count = len(r.positive)
    if not count:
        return torch.zeros(()), torch.zeros(logits.shape, dtype=torch.float64)
    error = r.false_positives / r.rank
    if interpolated:
        best = 0.0
        error = torch.zeros(count, dtype=torch.float64)
        for i in r.scores.argsort().tolist():
            best = max(best, float(r.true_positives[i] / r.rank[i]))
            error[i] = 1 - best
    return error.mean(), r.gradient(error, count)


def alrp(logits, targets, localization_error, delta, smooth=False):
    """Returns classification, localization, gradient of the logits, gradient of the localization error."""
    r = Reference(logits, targets, delta)
    count = len(r.positive)
    if not count:
        return torch.zeros(()), torch.zeros(()), torch.zeros(logits.shape, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    e = localization_error.detach().double().requires_grad_()
    fixed = e.detach()
    error = (r.false_positives + fixed + r.others @ fixed) / r.rank
    target = fixed / r.rank
    higher = r.others if smooth else step(r.scores[None, :] - r.scores[:, None], 0).fill_diagonal_(0)
    localization = ((e + higher @ e) / r.rank).mean()
    localization.backward()
    return (r.false_positives / r.rank).mean(), localization.detach(), r.gradient(error - target, count), e.grad


def ndcg(logits, targets, delta):
    r = Reference(logits, targets, delta)
    count = len(r.positive)
    if not count:
        return torch.zeros(()), torch.zeros(logits.shape, dtype=torch.float64)
    best = (1 / torch.log2(1 + torch.arange(1, count + 1).double())).sum()
    error = 1 / count - 1 / torch.log2(1 + r.rank) / best
    target = 1 / count - 1 / torch.log2(1 + r.true_positives) / best
    return error.sum(), r.gradient(error - target, 1)


def rank_sort(logits, targets, quality, delta):
    """Returns ranking, sorting, and the gradient of each."""
    r = Reference(logits, targets, delta)
    count, y = len(r.positive), quality.detach().double()
    sorting, sorting_gradient = torch.zeros((), dtype=torch.float64), torch.zeros(r.size, dtype=torch.float64)
    if not count:
        return torch.zeros(()), sorting, sorting_gradient.reshape(r.shape), sorting_gradient.reshape(r.shape)
    true_positives = r.above_positive.sum(1)
    ranking = r.false_positives / (true_positives + r.false_positives)
    for i in range(count):
        h, shortfall = r.above_positive[i], 1 - y
        better = h * (y >= y[i])
        worse = h * (y < y[i])
        excess = (h * shortfall).sum() / true_positives[i] - (better * shortfall).sum() / better.sum()
        sorting += excess / count
        if worse.sum() > 0:
            sorting_gradient[r.positive[i]] -= excess / count
            sorting_gradient[r.positive] += excess / count * worse / worse.sum()
    return ranking.mean(), sorting, r.gradient(ranking, count), sorting_gradient.reshape(r.shape)


def ape(logits, targets, quality, sharpness, cutoff):
    """The gradient is autograd's, with the ranks detached."""
    leaf = logits.detach().double().requires_grad_()
    flat, labels, y = leaf.reshape(-1), targets.reshape(-1), quality.detach().double()
    positive, negative = flat[labels == 1], flat[labels == 0]
    losses = []
    for i in range(len(positive)):
        wrong = torch.cat([negative, positive[y < y[i]]])
        right = positive[y >= y[i]]
        # The published threshold is a score.
        wrong = sharpness * (wrong[wrong > positive[i] - cutoff / sharpness] - positive[i])
        right = sharpness * (right[right > positive[i] - cutoff / sharpness] - positive[i])
        if len(wrong):
            rank = (torch.sigmoid(wrong).sum() + torch.sigmoid(right).sum()).detach()
            losses.append(y[i] / rank * torch.logaddexp(wrong, torch.zeros(())).sum())
    if not losses:
        return torch.zeros(()).double(), torch.zeros_like(logits).double()
    value = torch.stack(losses).mean() / sharpness
    return value.detach(), torch.autograd.grad(value, leaf)[0]
