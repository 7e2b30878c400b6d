"""Membership inference: decide from likelihoods whether a sample was trained on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from unsee.attacks import ATTACKS, Attack, LeakageReading, Subject
from unsee.evaluation.bootstrap import concept_interval, group_rows
from unsee.evaluation.recognition import auc, tpr_at_fpr
from unsee.losses import IGNORE, nll
from unsee.types import Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM

Score = Literal["loss", "zlib", "min_k", "min_k_plus", "grad_norm"]
RESAMPLES = 200


@ATTACKS.register("membership", source="arXiv 2310.16789; arXiv 2404.02936")
@dataclass(frozen=True)
class Membership(Attack):
    """Membership inference: forget samples (members) against matched samples never trained on.

    All scores are higher for samples that the model is more certain of:

    - `loss`: mean log-likelihood of the answer's tokens (LOSS);
    - `zlib`: summed log-likelihood divided by the answer's zlib-compressed length in bytes (ZLIB);
    - `min_k`: mean log-likelihood of the least likely tokens (Min-K%);
    - `min_k_plus`: the same after standardising each token's log-likelihood by its mean and
      standard deviation under the model's distribution at its position (Min-K%++);
    - `grad_norm`: minus the norm of the gradient of the loss (GradNorm).

    The reading is the ROC-AUC; 0.5 is chance.

    Source: Yeom et al., arXiv 1709.01604 (LOSS); Carlini et al., arXiv 2012.07805 (ZLIB); Shi et
    al., arXiv 2310.16789 (Min-K%); Zhang et al., arXiv 2404.02936 (Min-K%++, equation 3); GradNorm
    as in Open-MMUnlearning, arXiv 2610.10358.

    Attributes:
        scores: Scores to compute.
        k: Fraction of the tokens that Min-K% and Min-K%++ average; at least one token.
        most: Maximum number of samples per group; all groups have equally many of each task.
        seed: Seed of the choice of samples.

    Example:
        >>> from dataclasses import replace
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.membership import Membership
        >>> unknown = [replace(s, concept="Eva Roth") for s in data.retain if s.picture]
        >>> subject = Subject(vlm, attacker_samples=data.forget, non_members=unknown)
        >>> (reading,) = Membership(scores=("loss",), most=6).readings(subject)
        >>> reading.name, reading.n, reading.baseline
        ('loss AUC', 6, 0.5)
        >>> 0 <= reading.forget <= 1
        True
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"scores": ()}
    needs: ClassVar[frozenset[str]] = frozenset({"attacker_samples", "answers", "non_members"})
    reads: ClassVar[bool] = True

    scores: tuple[Score, ...] = ("loss", "zlib", "min_k", "min_k_plus", "grad_norm")
    k: Annotated[float, Field(gt=0, le=1)] = 0.2
    most: Annotated[int, Field(ge=1)] = 120
    seed: Annotated[int, Field(ge=0)] = 0

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """Returns the ROC-AUC of each score, with the true positive rate at 1 % false positives."""
        if not self.scores:
            return []
        groups = self._matched(subject.attacker_samples, subject.retain, subject.non_members)
        members, retain, non_members = (self._scored(subject.vlm, group) for group in groups)
        return [
            LeakageReading(
                f"{score} AUC",
                auc(members[score], non_members[score]),
                *auc_interval(
                    members[score], non_members[score], *map(_people, (groups[0], groups[2]))
                ),
                len(members[score]),
                auc(retain[score], non_members[score]) if len(retain[score]) else None,
                0.5,
                {
                    "tpr_at_1_fpr": tpr_at_fpr(members[score], non_members[score], 0.01),
                    "non_members": len(non_members[score]),
                },
            )
            for score in self.scores
        ]

    def _matched(self, *groups: Sequence[Sample]) -> list[list[Sample]]:
        """Draws equally many samples of every task from each group; an empty group stays empty."""
        rng = np.random.default_rng([self.seed, 88])
        usable = [[s for s in group if s.picture is not None and s.answer] for group in groups]
        tasks = sorted({s.task for s in usable[0]} & {s.task for s in usable[2]})
        matched: list[list[Sample]] = [[] for _ in groups]
        for task in tasks:
            pools = [[s for s in group if s.task == task] for group in usable]
            count = min(self.most // len(tasks) or 1, *(len(pool) for pool in pools if pool))
            for group, pool in zip(matched, pools, strict=True):
                group += [pool[i] for i in sorted(rng.permutation(len(pool))[:count])]
        return matched

    def _scored(self, vlm: VLM, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Returns the samples' values of each score."""
        scores: dict[str, list[float]] = {score: [] for score in self.scores}
        for start in range(0, len(samples), 32):
            batch_samples = samples[start : start + 32]
            batch = vlm.collate(batch_samples)
            with torch.no_grad():
                logits = vlm.logits(batch)
            for sample, row, labels in zip(batch_samples, logits, batch.labels, strict=True):
                logps, standardised = token_scores(row, labels)
                values = {
                    "loss": float(logps.mean()),
                    "zlib": float(logps.sum()) / len(zlib.compress(sample.answer.encode())),
                    "min_k": mean_lowest(logps, self.k),
                    "min_k_plus": mean_lowest(standardised, self.k),
                }
                for score in scores:
                    if score in values:
                        scores[score].append(values[score])
        if "grad_norm" in scores:
            scores["grad_norm"] = [-_gradient_norm(vlm, sample) for sample in samples]
        return {score: np.array(values) for score, values in scores.items()}


def token_scores(
    logits: Float[Tensor, "seq vocab"], labels: Tensor
) -> tuple[Float[Tensor, " answer"], Float[Tensor, " answer"]]:
    """Returns each answer token's log-probability, in nats, and its standardised value.

    The standardised value subtracts the mean of log p(z) over z drawn from p, and divides by its
    standard deviation.

    Args:
        logits: Logits of one sample; position t predicts token t + 1.
        labels: Token ids on the answer, -100 elsewhere [seq].

    Source: Min-K%++, arXiv 2404.02936, equation 3.
    """
    mask = labels[1:] != IGNORE
    logps = logits[:-1][mask].float().log_softmax(-1)
    token_logps = logps.gather(-1, labels[1:][mask][:, None])[:, 0]
    p = logps.exp()
    mean = (p * logps).sum(-1)
    deviation = (p * (logps - mean[:, None]).square()).sum(-1).sqrt()
    return token_logps, (token_logps - mean) / deviation.clamp(min=1e-6)


def mean_lowest(values: Float[Tensor, " answer"], k: float) -> float:
    """Returns the mean of the lowest values: a fraction `k` of them, at least one.

    Example:
        >>> mean_lowest(torch.tensor([3.0, 1.0, 2.0, 5.0]), 0.5)
        1.5
    """
    count = max(1, int(k * len(values)))
    return float(values.sort().values[:count].mean())


def auc_interval(
    members: np.ndarray,
    others: np.ndarray,
    member_people: Sequence[str],
    other_people: Sequence[str],
) -> tuple[float | None, float | None]:
    """Returns the 95 % interval of the AUC over the people of both groups, as (low, high).

    Args:
        members: Scores of the members.
        others: Scores of the non-members.
        member_people: The person of each member's score.
        other_people: The person of each non-member's score.
    """
    rows_of, other_rows_of = group_rows(member_people), group_rows(other_people)

    def resampled(drawn: np.ndarray, others_drawn: np.ndarray) -> float:
        rows = np.concatenate([rows_of[i] for i in drawn])
        other_rows = np.concatenate([other_rows_of[i] for i in others_drawn])
        return auc(members[rows], others[other_rows])

    value = auc(members, others)
    # At 0 or 1 every pair of a member and a non-member has the same outcome.
    return concept_interval(
        resampled,
        [len(rows_of), len(other_rows_of)],
        value=value,
        all_equal=value in (0.0, 1.0),
        resamples=RESAMPLES,
    )


def _people(samples: Sequence[Sample]) -> list[str]:
    return [sample.concept or sample.id for sample in samples]


def _gradient_norm(vlm: VLM, sample: Sample) -> float:
    """Returns the norm of the loss's gradient over all weights; leaves no gradient in them."""
    batch = vlm.collate([sample])
    weights = [p for p in vlm.parameters().values() if p.is_floating_point()]
    required = [p.requires_grad for p in weights]
    try:
        for p in weights:
            p.requires_grad_(True)
        with torch.enable_grad():
            loss = nll(vlm.logits(batch), batch.labels)
            grads = torch.autograd.grad(loss, weights, allow_unused=True)
    finally:
        for p, before in zip(weights, required, strict=True):
            p.requires_grad_(before)
    return float(sum(g.float().square().sum() for g in grads if g is not None) ** 0.5)
