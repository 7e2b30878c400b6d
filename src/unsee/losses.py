"""Loss terms as pure functions of tensors. Log-probabilities are in nats."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

IGNORE = -100

# The positions that a loss runs over: those that predict the answer, or every one of a batch.
TokenScope = Literal["answer", "all"]


def token_logps(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> tuple[Float[Tensor, "batch seq-1"], Float[Tensor, "batch seq-1"]]:
    """Log-probabilities (nats) of the labelled tokens, and the mask of labelled positions.

    Position t predicts token t + 1. Unlabelled positions have log-probability 0 and mask 0.
    """
    target = labels[:, 1:]
    mask = target != IGNORE
    # Only labelled positions go through the softmax: most of a sequence is prompt and image tokens.
    picked = logits[:, :-1][mask].float()
    logps = logits.new_zeros(target.shape, dtype=torch.float32)
    logps = logps.masked_scatter(mask, -F.cross_entropy(picked, target[mask], reduction="none"))
    return logps, mask.float()


def sequence_logps(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Log-probability (nats) of each answer, summed over its tokens."""
    logps, _ = token_logps(logits, labels)
    return logps.sum(-1)


def sequence_nll(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, " batch"]:
    """Mean negative log-likelihood (nats per token) of each answer; 0 without an answer."""
    logps, mask = token_logps(logits, labels)
    return -logps.sum(-1) / mask.sum(-1).clamp(min=1)


def nll(
    logits: Float[Tensor, "batch seq vocab"], labels: Int[Tensor, "batch seq"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood (nats per token), averaged over tokens and then over answers.

    Differs: the papers average over all tokens of a batch. With the average per answer, accumulated
    small batches equal one large batch, and long answers do not dominate.
    """
    return sequence_nll(logits, labels).mean()


def masked_kl(
    reference: Float[Tensor, "batch other vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    reference_labels: Int[Tensor, "batch other"] | None = None,
) -> Float[Tensor, ""]:
    """KL(reference || model) in nats over answer tokens, averaged as in `nll`.

    Args:
        reference: Logits of the reference model.
        logits: Logits of the model.
        labels: Token ids of the answers, `IGNORE` elsewhere.
        reference_labels: Labels of the same answers for `reference`, if its prompts differ.
    """
    mask = labels[:, 1:] != IGNORE
    reference_mask = mask if reference_labels is None else reference_labels[:, 1:] != IGNORE
    p = F.log_softmax(reference[:, :-1][reference_mask].float(), dim=-1)
    q = F.log_softmax(logits[:, :-1][mask].float(), dim=-1)
    return _answer_mean((p.exp() * (p - q)).sum(-1), mask)


def position_kl(
    reference: Float[Tensor, "batch seq vocab"], logits: Float[Tensor, "batch seq vocab"]
) -> Float[Tensor, ""]:
    """KL(reference || model) in nats, averaged over all positions: prompt and padding included.

    Args:
        reference: Logits of the reference model.
        logits: Logits of the model.

    Source: TOFU, arXiv 2401.06121, its authors' code.
    """
    p = F.log_softmax(reference.float(), dim=-1)
    q = F.log_softmax(logits.float(), dim=-1)
    return (p.exp() * (p - q)).sum(-1).mean()


def adjusted_cross_entropy(
    reference: Float[Tensor, "batch seq vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
    gamma: float,
) -> Float[Tensor, ""]:
    """Cross-entropy (nats) with the reference's distribution, the true token's logit lowered.

    Args:
        reference: Logits of the frozen model at the start.
        logits: Logits of the model.
        labels: Token ids of the true answers, `IGNORE` elsewhere. The ids of whole sequences make
            it run over all positions, prompt and padding included.
        gamma: How much the true token's logit is lowered, in nats.
    """
    mask = labels[:, 1:] != IGNORE
    ids, vocabulary = labels[:, 1:][mask], logits.shape[-1]
    # An image placeholder may lie beyond the vocabulary of the output: no logit is lowered then.
    known = ids < vocabulary
    true = F.one_hot(ids.where(known, 0), vocabulary) * known.unsqueeze(-1)
    target = F.softmax(reference[:, :-1][mask].float() - gamma * true, dim=-1)
    values = F.cross_entropy(logits[:, :-1][mask].float(), target, reduction="none")
    return _answer_mean(values, mask)


def masked_token_kl(
    reference: Float[Tensor, "batch seq vocab"],
    logits: Float[Tensor, "batch seq vocab"],
    labels: Int[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """KL(reference without the true token || model) in nats, averaged as in `nll`.

    Args:
        reference: Logits of the reference model; the true token's probability is set to 0 and the
            others are scaled up.
        logits: Logits of the model.
        labels: Token ids of the true answers, `IGNORE` elsewhere.
    """
    mask = labels[:, 1:] != IGNORE
    true = F.one_hot(labels[:, 1:][mask], logits.shape[-1]).bool()
    p = F.log_softmax(reference[:, :-1][mask].float().masked_fill(true, -torch.inf), dim=-1)
    q = F.log_softmax(logits[:, :-1][mask].float(), dim=-1)
    # Where p is 0, so is the summand; 0 * -inf would be NaN.
    values = (p.exp() * (p.masked_fill(true, 0.0) - q.masked_fill(true, 0.0))).sum(-1)
    return _answer_mean(values, mask)


def relative_squared_distance(
    h: Float[Tensor, "*shape"], t: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """||h - t||^2 / ||t||^2, summed over all values.

    Args:
        h: Features.
        t: What they are compared with.

    Example:
        >>> float(relative_squared_distance(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 4.0])))
        0.5625
    """
    squares = t.float().square().sum().clamp(min=1e-12)
    return (h.float() - t.float()).square().sum() / squares


def masked_mse(
    h: Float[Tensor, "batch seq dim"],
    t: Float[Tensor, "batch tokens dim"],
    mask: Int[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """Mean squared error per channel over masked tokens, averaged per row and then over rows.

    Args:
        h: Hidden states.
        t: Their targets; a single token is the target of all.
        mask: 1 at the tokens that count.
    """
    distance = (h.float() - t.float()).square().mean(-1) * mask
    return (distance.sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def capped(loss: Float[Tensor, ""], cap: float) -> Float[Tensor, ""]:
    """The loss, clamped to `cap`: above it, the value is constant and has no gradient."""
    return loss.clamp(max=cap)


def scaled_mse(
    h: Float[Tensor, "batch *tokens dim"],
    t: Float[Tensor, "batch *tokens dim"],
    variance: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """Mean squared error of each row, divided by the variance of the layer; 0 if equal.

    Args:
        h: Representations of the student.
        t: Representations of the teacher.
        variance: Variance of the layer's representations.
    """
    return (h.float() - t.float()).square().flatten(1).mean(1) / variance


def supervised_contrastive(
    features: Float[Tensor, "views dim"], labels: Int[Tensor, " views"], temperature: float
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood (nats) of a view's own class among all other views, by cosine.

    Views whose class has no other view are left out; 0 if none is left.

    Source: Khosla et al., arXiv 2004.11362, equation 2 (the mean outside the logarithm).

    Args:
        features: Features of views of pictures.
        labels: The class of each.
        temperature: Temperature of the softmax over cosines.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> round(float(supervised_contrastive(features, torch.tensor([0, 0, 1]), 1.0)), 4)
        0.1269
    """
    unit = F.normalize(features.float(), dim=-1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    logps = F.log_softmax((unit @ unit.T / temperature).masked_fill(own, -torch.inf), dim=-1)
    positive = (labels[:, None] == labels) & ~own
    means = logps.masked_fill(~positive, 0.0).sum(-1) / positive.sum(-1).clamp(min=1)
    has = positive.any(-1)
    return -(means * has).sum() / has.sum().clamp(min=1)


def _answer_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Averages `values`, one per masked token, over each answer's tokens, then over answers."""
    per_token = values.new_zeros(mask.shape).masked_scatter(mask, values)
    return (per_token.sum(-1) / mask.sum(-1).clamp(min=1)).mean()
