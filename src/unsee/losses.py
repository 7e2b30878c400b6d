"""Pure functions on tensors that the methods are made of. Logits are in nats."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORE = -100


def token_logps(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch seq-1"], Float[Tensor, "batch seq-1"]]:
    """Log-probabilities (nats) of the labelled tokens, and the mask of where they are.

    Position t predicts token t + 1. Unlabelled positions have log-probability 0 and mask 0.
    """
    target = labels[:, 1:]
    mask = target != IGNORE
    # Only labelled rows go through the softmax: prompts and image tokens are most of a sequence.
    picked = logits[:, :-1][mask].float()
    logps = logits.new_zeros(target.shape, dtype=torch.float32)
    logps = logps.masked_scatter(mask, -F.cross_entropy(picked, target[mask], reduction="none"))
    return logps, mask.float()


def sequence_logps(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Log-probability (nats) of each whole answer, summed over its tokens."""
    logps, _ = token_logps(logits, labels)
    return logps.sum(-1)


def sequence_nll(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Mean negative log-likelihood (nats a token) of each answer; 0 where there is none."""
    logps, mask = token_logps(logits, labels)
    return -logps.sum(-1) / mask.sum(-1).clamp(min=1)


def nll(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean over the answers of their mean negative log-likelihood (nats a token).

    Differs: the papers average over all tokens of a batch; averaging over answers first makes
    accumulated small batches equal one large batch, and lets no long answer dominate.
    """
    return sequence_nll(logits, labels).mean()


def masked_kl(
    reference: Float[Tensor, "batch other vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    reference_labels: Int[Tensor, "batch other"] | None = None,
) -> Float[Tensor, ""]:
    """KL(reference || model) in nats over answer tokens, averaged as `nll` averages.

    Args:
        reference: Logits of what is to be followed.
        logits: Logits of what follows.
        labels: Where the answers are.
        reference_labels: Where the same answers are for `reference`, if its prompts are others.
    """
    mask = labels[:, 1:] != IGNORE
    theirs = mask if reference_labels is None else reference_labels[:, 1:] != IGNORE
    p = F.log_softmax(reference[:, :-1][theirs].float(), dim=-1)
    q = F.log_softmax(logits[:, :-1][mask].float(), dim=-1)
    return _answer_mean((p.exp() * (p - q)).sum(-1), mask)


def adjusted_cross_entropy(
    reference: Float[Tensor, "batch seq vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    gamma: float,
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) to the reference's distribution with the true token's logit lowered.

    Args:
        reference: Logits of the frozen start model.
        logits: The model's logits.
        labels: The true answers.
        gamma: What is taken off the true token's logit, in nats.
    """
    mask = labels[:, 1:] != IGNORE
    true = F.one_hot(labels[:, 1:][mask], logits.shape[-1])
    target = F.softmax(reference[:, :-1][mask].float() - gamma * true, dim=-1)
    values = F.cross_entropy(logits[:, :-1][mask].float(), target, reduction="none")
    return _answer_mean(values, mask)


def masked_mse(
    h: Float[Tensor, "batch seq dim"],
    t: Float[Tensor, "batch tokens dim"],
    mask: Int[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Mean squared distance a channel at the tokens of the mask, row by row, then over rows.

    Args:
        h: Hidden states.
        t: Where they should be; one token stands at each.
        mask: 1 at the tokens that count.
    """
    distance = (h.float() - t.float()).square().mean(-1) * mask
    return (distance.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def capped(loss: Float[Tensor, ""], cap: float) -> Float[Tensor, ""]:
    """The loss where it is below `cap`, and a constant (no gradient) above."""
    return loss.clamp(max=cap)


def scaled_mse(
    h: Float[Tensor, "batch *tokens dim"],
    t: Float[Tensor, "batch *tokens dim"],
    variance: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """Squared distance of each row's representation over the layer's variance; 0 where equal."""
    return (h.float() - t.float()).square().flatten(1).mean(1) / variance


def cosine_distance(
    h: Float[Tensor, "batch *tokens dim"], t: Float[Tensor, "batch *tokens dim"]
) -> Float[Tensor, " batch"]:
    """One minus the cosine of each token's representations, averaged over tokens; 0 to 2."""
    return (1 - F.cosine_similarity(h.float(), t.float(), dim=-1)).flatten(1).mean(1)


def feature_kl(
    h: Float[Tensor, "batch *tokens dim"],
    t: Float[Tensor, "batch *tokens dim"],
    temperature: float = 1.0,
) -> Float[Tensor, " batch"]:
    """KL (nats) between channel softmaxes of teacher and student, averaged over tokens."""
    p = F.log_softmax(t.float() / temperature, dim=-1)
    q = F.log_softmax(h.float() / temperature, dim=-1)
    return (p.exp() * (p - q)).sum(-1).flatten(1).mean(1)


def _answer_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over answers of the mean over their tokens; `values` are those at the mask."""
    spread = values.new_zeros(mask.shape).masked_scatter(mask, values)
    return (spread.sum(-1) / mask.sum(-1).clamp(min=1)).mean()
