"""Small batches: the scores of the last steps, ranked together with those of this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._checks import check_per_positive, check_ranking_input


class ScoreMemory(nn.Module):
    """A ranking loss of this batch and of the last ``steps`` batches, as one ranking of ``B <= steps + 1`` batches.

    ``L = loss(s_1 ... s_B)``, and ``dL/ds_1`` multiplied by B, which makes it as large as that of the loss of one batch; s_1 are the scores
    of this batch, the others are constants. So the negatives of this batch are below the positives of all batches or are pushed there, and
    its positives above the negatives of all.

    The memory is not part of the state dict: it fills anew within ``steps`` steps. In evaluation mode the batch is ranked by itself and not
    remembered. Scores that are not finite are not remembered either; a batch without any finite ones does not count in B. Each process of a
    distributed job has its own memory; with ``global_batch=True`` all of them are ranked as one. The time and the memory of the loss grow
    B times.

    Args:
        loss: ``ap_loss``, or a function or module that is called like it: logits and targets of one shape, then tensors with a value for
            each positive, then options; it returns a scalar, or a tuple of scalars. -1 in the targets is ignored.
        steps: >= 1.

    Raises:
        ValueError: steps is less than 1; in the call, ``groups``: what is remembered has no groups; what the loss refuses.

    Source:
        Ours; a queue of embeddings of the last steps was used by Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020, Sec. 3.

    Example:
        >>> from lossbox.losses import ap_loss
        >>> memory = ScoreMemory(ap_loss, steps=7)
        >>> memory(torch.tensor([4.0, 0.0]), torch.tensor([0, 1]))
        tensor(0.5000)
        >>> logits = torch.tensor([2.0, 0.0], requires_grad=True)
        >>> loss = memory(logits, torch.tensor([1, 0]))  # its positive is above its negative, but not above the remembered 4.0
        >>> loss.backward()
        >>> loss, logits.grad
        (tensor(0.4643, grad_fn=<AddBackward0>), tensor([-0.5000,  0.1429]))
    """

    def __init__(self, loss: Callable[..., Any], steps: int) -> None:
        super().__init__()
        _check_steps("steps", steps, least=1)
        self.loss = loss
        self.last: deque[tuple[Tensor, ...]] = deque(maxlen=steps)

    def forward(self, logits: Tensor, targets: Tensor, *per_positive: Tensor, groups: Any = None, **options: Any) -> Any:
        if groups is not None:
            raise ValueError("groups: None expected, since a memory of scores ranks all together")
        if not self.training:
            return self.loss(logits, targets, *per_positive, **options)
        # of this batch alone, since the loss would speak of all of them
        check_ranking_input(logits, targets)
        remembered = _finite(logits.detach().flatten(), targets.detach().flatten(), *per_positive)
        if self.last and len(remembered) != len(self.last[0]):
            raise ValueError(f"per_positive: {len(self.last[0]) - 2} tensors expected, as in the last step, got {len(per_positive)}")
        batches = [(logits.flatten(), targets.flatten(), *per_positive), *self.last]
        loss = self.loss(*(torch.cat([one.to(logits.device) for one in ones]) for ones in zip(*batches, strict=True)), **options)
        number = 1 + sum((targets != -1).any().to(logits.device) for _, targets, *_ in self.last)
        self.last.append(remembered)
        return _scale_gradient(loss, number)


def with_memory(loss: Callable[..., Any], memory: int, groups: object = None) -> Callable[..., Any]:
    """``loss`` with a ``ScoreMemory`` of so many steps; 0 is the loss itself."""
    _check_steps("memory", memory, least=0)
    if memory and groups is not None:
        raise ValueError(f"memory: ranks all scores together, and does not go with groups; got {memory} and {groups!r}")
    return ScoreMemory(loss, memory) if memory else loss


def _check_steps(name: str, steps: int, *, least: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or not least <= steps < 2**31:
        raise ValueError(f"{name}: a number of steps >= {least} expected, got {steps!r}")


def _scale_gradient(loss: Any, factor: Tensor | int) -> Any:
    if isinstance(loss, Tensor):
        return loss.detach() + factor * (loss - loss.detach())
    terms = [_scale_gradient(term, factor) for term in loss]
    return type(loss)(*terms) if hasattr(loss, "_fields") else type(loss)(terms)


def _finite(logits: Tensor, targets: Tensor, *per_positive: Tensor) -> tuple[Tensor, ...]:
    """The batch, detached, with what is not finite ignored."""
    finite = logits.isfinite()
    if per_positive:
        positive = targets == 1
        kept = finite[positive]
        for values in per_positive:
            check_per_positive(values, "values of the positives", len(kept))
            kept &= values.isfinite()
        finite = finite.masked_scatter(positive, kept)
        per_positive = tuple(values.detach()[kept] for values in per_positive)
    return logits.where(finite, 0.0), targets.where(finite, -1), *per_positive
