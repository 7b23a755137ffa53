"""What happens to aLRP when its target error is overlooked."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..losses import ALRPTerms, alrp_loss
from ..losses._ranking import rank_positives


def alrp_loss_with_target_zero(
    logits: Float[Tensor, ...], targets: Tensor, localization_error: Float[Tensor, " p"], *, delta: float = 1.0, global_batch: bool = False
) -> ALRPTerms:
    """aLRP with a target error of 0 in the place of ``l*(i) = E(i) / rank(i)``: WRONG, and here only to be shown.

    The value is that of ``alrp_loss``, and so is the gradient of the boxes. The gradient of the scores is that of the update
    ``-(l(i) - 0)``: a positive that no negative outranks still receives ``-l(i) / |P|``, since its error contains that of its box, and no
    negative receives the other half: the balance of positives and negatives (Theorem 2) is lost as soon as positives rank properly.

    Args:
        logits, targets, localization_error, delta, global_batch: as in ``alrp_loss``.

    Returns:
        ``ALRPTerms(classification, localization)``.

    Source:
        Oksuz et al., NeurIPS 2020, App. G.3 and Figure A.7.

    Example:
        >>> logits = torch.tensor([2.0, 0.0], requires_grad=True)
        >>> alrp_loss_with_target_zero(logits, torch.tensor([1, 0]), torch.tensor([0.5])).classification.backward()
        >>> logits.grad
        tensor([-0.5000,  0.0000])
    """
    right = alrp_loss(logits, targets, localization_error, delta=delta, global_batch=global_batch)
    ranking = rank_positives(logits, targets, delta=delta, global_batch=global_batch)
    with torch.no_grad():
        error = ranking.join(localization_error.detach(), "localization_error").to(ranking.scores.dtype)
        whole = (ranking.false_positives + error + ranking.sum_above(error)) / ranking.rank / max(len(ranking), 1)
    classification = ranking.attach_gradient(right.classification.detach()[None], -whole[None], whole[None]).squeeze(0)
    return ALRPTerms(classification, right.localization)
