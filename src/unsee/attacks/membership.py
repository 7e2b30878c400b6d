"""Membership inference: can one tell from likelihoods that a sample was trained on?"""

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
from unsee.losses import IGNORE, nll
from unsee.types import Sample

if TYPE_CHECKING:
    from unsee.models.vlm import VLM

Score = Literal["loss", "zlib", "min_k", "min_k_plus", "grad_norm"]
RESAMPLES = 200


@ATTACKS.register("membership", source="arXiv 2310.16789; arXiv 2404.02936")
@dataclass(frozen=True)
class Membership(Attack):
    """Membership inference: forget samples (members) against matched people never trained on.

    Every score is higher for what the model is surer of: LOSS is the mean log-likelihood of the
    answer, ZLIB the whole one over the answer's compressed length in bytes, Min-K% the mean of the
    least likely tokens, Min-K%++ the same after standardising each by what the model expects at its
    place, GradNorm minus the norm of the loss's gradient. .5 is chance.

    Source: Yeom et al., arXiv 1709.01604 (LOSS); Carlini et al., arXiv 2012.07805 (ZLIB); Shi et
    al., arXiv 2310.16789 (Min-K%); Zhang et al., arXiv 2404.02936 (Min-K%++, equation 3); GradNorm
    as in Open-MMUnlearning, arXiv 2610.10358.

    Attributes:
        scores: Which of them.
        k: Share of the tokens that Min-K% and Min-K%++ average; at least one.
        most: Samples of a side, equally many of every task on both sides.
        seed: Of the choice of samples.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "white_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"scores": ()}
    needs: ClassVar[frozenset[str]] = frozenset({"known", "answers", "outside"})
    reads: ClassVar[bool] = True

    scores: tuple[Score, ...] = ("loss", "zlib", "min_k", "min_k_plus", "grad_norm")
    k: Annotated[float, Field(gt=0, le=1)] = 0.2
    most: Annotated[int, Field(ge=1)] = 120
    seed: Annotated[int, Field(ge=0)] = 0

    def readings(self, subject: Subject) -> list[LeakageReading]:
        """ROC-AUC of every score, and how many members are told at 1 % false alarms."""
        if not self.scores:
            return []
        sides = self._matched(subject.attacker_samples, subject.retain, subject.outside)
        members, others, strangers = (self._scored(subject.vlm, some) for some in sides)
        found = []
        for score in self.scores:
            mine, theirs = members[score], strangers[score]
            low, high = _interval(mine, theirs, sides[0], sides[2])
            kept = others[score]
            found.append(
                LeakageReading(
                    f"{score} AUC",
                    auc(mine, theirs),
                    low,
                    high,
                    len(mine),
                    auc(kept, theirs) if len(kept) else None,
                    0.5,
                    {"tpr_at_1_fpr": tpr_at(mine, theirs, 0.01), "non_members": len(theirs)},
                )
            )
        return found

    def _matched(self, *sides: Sequence[Sample]) -> list[list[Sample]]:
        """Equally many samples of every task from each side; a side without any stays empty."""
        rng = np.random.default_rng([self.seed, 88])
        usable = [[s for s in some if s.picture is not None and s.answer] for some in sides]
        tasks = sorted({s.task for s in usable[0]} & {s.task for s in usable[2]})
        found: list[list[Sample]] = [[] for _ in sides]
        for task in tasks:
            pools = [[s for s in some if s.task == task] for some in usable]
            count = min(self.most // len(tasks) or 1, *(len(pool) for pool in pools if pool))
            for side, pool in zip(found, pools, strict=True):
                side += [pool[i] for i in sorted(rng.permutation(len(pool))[:count])]
        return found

    def _scored(self, vlm: VLM, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Every score of every sample."""
        rows: dict[str, list[float]] = {score: [] for score in self.scores}
        for start in range(0, len(samples), 32):
            some = samples[start : start + 32]
            batch = vlm.collate(some)
            with torch.no_grad():
                logits = vlm.logits(batch)
            for sample, out, labels in zip(some, logits, batch.labels, strict=True):
                logps, standard = token_scores(out, labels)
                values = {
                    "loss": float(logps.mean()),
                    "zlib": float(logps.sum()) / len(zlib.compress(sample.answer.encode())),
                    "min_k": lowest(logps, self.k),
                    "min_k_plus": lowest(standard, self.k),
                }
                for score in rows:
                    if score in values:
                        rows[score].append(values[score])
        if "grad_norm" in rows:
            rows["grad_norm"] = [-_gradient(vlm, sample) for sample in samples]
        return {score: np.array(values) for score, values in rows.items()}


def token_scores(
    logits: Float[Tensor, "seq vocab"], labels: Tensor
) -> tuple[Float[Tensor, " answer"], Float[Tensor, " answer"]]:
    """Log-probability (nats) of each answer token, and the same standardised.

    Standardised: less the mean of log p(z) over z drawn from p, over its standard deviation.

    Source: Min-K%++, arXiv 2404.02936, equation 3.
    """
    mask = labels[1:] != IGNORE
    logps = logits[:-1][mask].float().log_softmax(-1)
    mine = logps.gather(-1, labels[1:][mask][:, None])[:, 0]
    p = logps.exp()
    mean = (p * logps).sum(-1)
    spread = (p * (logps - mean[:, None]).square()).sum(-1).sqrt()
    return mine, (mine - mean) / spread.clamp(min=1e-6)


def lowest(values: Float[Tensor, " answer"], k: float) -> float:
    """The mean of the share `k` of values that are lowest, of one at least."""
    count = max(1, int(k * len(values)))
    return float(values.sort().values[:count].mean())


def auc(members: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray) -> float:
    """ROC-AUC: how often a member scores above a non-member; ties count half."""
    ordered = np.sort(np.asarray(others, dtype=float))
    values = np.asarray(members, dtype=float)
    below = np.searchsorted(ordered, values, "left")
    upto = np.searchsorted(ordered, values, "right")
    return float((below + upto).mean() / (2 * len(ordered)))


def tpr_at(
    members: Sequence[float] | np.ndarray, others: Sequence[float] | np.ndarray, fpr: float
) -> float:
    """Share of the members above a threshold that at most a share `fpr` of non-members is above."""
    ordered = np.sort(np.asarray(others, dtype=float))[::-1]
    allowed = int(fpr * len(ordered))
    return float((np.asarray(members, dtype=float) > ordered[allowed]).mean())


def _interval(
    members: np.ndarray, others: np.ndarray, mine: Sequence[Sample], theirs: Sequence[Sample]
) -> tuple[float, float]:
    """95 % of the AUC, bootstrapped over the people of both sides."""
    rng = np.random.default_rng(0)
    blocks = []
    for samples in (mine, theirs):
        of: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            of.setdefault(sample.concept or sample.id, []).append(index)
        blocks.append([np.array(some) for some in of.values()])
    found = []
    for _ in range(RESAMPLES):
        drawn = [
            np.concatenate([some[i] for i in rng.integers(len(some), size=len(some))])
            for some in blocks
        ]
        found.append(auc(members[drawn[0]], others[drawn[1]]))
    low, high = np.quantile(found, [0.025, 0.975])
    value = auc(members, others)
    return min(float(low), value), max(float(high), value)


def _gradient(vlm: VLM, sample: Sample) -> float:
    """Norm of the gradient of the answer's loss over all weights; no weight keeps one."""
    batch = vlm.collate([sample])
    values = [p for p in vlm.parameters().values() if p.is_floating_point()]
    wanted = [p.requires_grad for p in values]
    try:
        for p in values:
            p.requires_grad_(True)
        with torch.enable_grad():
            loss = nll(vlm.logits(batch), batch.labels)
            grads = torch.autograd.grad(loss, values, allow_unused=True)
    finally:
        for p, before in zip(values, wanted, strict=True):
            p.requires_grad_(before)
    return float(sum(g.float().square().sum() for g in grads if g is not None) ** 0.5)
