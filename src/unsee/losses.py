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
    reference: Float[Tensor, "batch seq vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """KL(reference || model) in nats over answer tokens, averaged as `nll` averages."""
    mask = labels[:, 1:] != IGNORE
    p = F.log_softmax(reference[:, :-1][mask].float(), dim=-1)
    q = F.log_softmax(logits[:, :-1][mask].float(), dim=-1)
    values = (p.exp() * (p - q)).sum(-1)
    spread = logits.new_zeros(mask.shape, dtype=torch.float32).masked_scatter(mask, values)
    return (spread.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


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
