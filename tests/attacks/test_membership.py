"""The attack `membership`: its scores, and how well they separate members from non-members."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import pytest
import torch

from unsee.attacks import Subject
from unsee.attacks.membership import Membership, mean_lowest, token_scores
from unsee.attacks.relearn import Relearn
from unsee.evaluation.generation import answer_nlls
from unsee.evaluation.recognition import auc, tpr_at_fpr
from unsee.losses import IGNORE, nll


def test_token_scores_equal_hand_computed_min_k_plus_plus() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]])
    # Position t predicts token t + 1; the prompt is one token, the answer tokens 1 and 0.
    logits = torch.cat([p.log(), torch.zeros(0, 3)])
    labels = torch.tensor([IGNORE, 1, 0])
    log_likelihoods, standardised = token_scores(logits, labels)
    assert log_likelihoods.tolist() == pytest.approx([math.log(0.25), math.log(0.9)])
    mean = 0.5 * math.log(0.5) + 0.5 * math.log(0.25)
    spread = 0.5 * abs(math.log(0.5) - math.log(0.25))
    assert float(standardised[0]) == pytest.approx((math.log(0.25) - mean) / spread)
    assert float(standardised[0]) == pytest.approx(-1.0)
    mean = 0.9 * math.log(0.9) + 0.1 * math.log(0.05)
    spread = math.sqrt(0.9 * 0.1) * (math.log(0.9) - math.log(0.05))
    assert float(standardised[1]) == pytest.approx((math.log(0.9) - mean) / spread, rel=1e-4)
    assert mean_lowest(torch.tensor([3.0, 1.0, 2.0, 5.0]), 0.5) == 1.5
    assert mean_lowest(torch.tensor([3.0, 1.0]), 0.1) == 1.0


def test_auc_and_tpr_at_fpr_equal_hand_computed_values() -> None:
    # Of nine pairs members win 3 + 1.5 + 1 (one tie, counted half).
    assert auc([5, 2, 1], [0, 2, 3]) == pytest.approx((3 + 1.5 + 1) / 9)
    assert auc([1, 1], [1, 1]) == 0.5
    non_members = list(range(200))
    # 1 % of 200 may be above: the threshold is the third highest, 197.
    assert tpr_at_fpr([198, 197, 500, 0], non_members, 0.01) == 0.5
    # Of fewer than a hundred none may be.
    assert tpr_at_fpr([9, 10, 11], list(range(10)), 0.01) == pytest.approx(2 / 3)


def test_membership_scores_equal_direct_computations(subject: Subject) -> None:
    samples = [s for s in subject.attacker_samples if s.task == "generation"]
    scores = Membership(k=1.0)._scored(subject.vlm, samples)
    nlls = answer_nlls(subject.vlm, samples)
    assert scores["loss"].tolist() == pytest.approx([-v for v in nlls], rel=1e-4)
    # At k = 1 the lowest tokens are all tokens.
    assert scores["min_k"].tolist() == pytest.approx(scores["loss"].tolist(), rel=1e-4)
    tokens = subject.vlm.collate(samples[:1]).labels.ne(IGNORE).sum()
    compressed = len(zlib.compress(samples[0].answer.encode()))
    expected = scores["loss"][0] * int(tokens) / compressed
    assert scores["zlib"][0] == pytest.approx(expected, rel=1e-4)
    vlm = subject.vlm.copy()
    vlm.model.requires_grad_(True)
    batch = vlm.collate(samples[:1])
    nll(vlm.logits(batch), batch.labels).backward()
    squared_norm = sum(
        float(p.grad.square().sum()) for p in vlm.parameters().values() if p.grad is not None
    )
    assert scores["grad_norm"][0] == pytest.approx(-math.sqrt(squared_norm), rel=1e-4)


def test_membership_auc_rises_after_training_on_the_members(subject: Subject) -> None:
    subject = replace(subject, non_members=subject.retain)
    trained = Relearn(share=1.0, steps=40, lr=3e-3, modules="all").apply(subject)
    before, after = (Membership().readings(s)[0] for s in (subject, trained))
    assert after.forget > max(before.forget, 0.8)
    # Fewer than five people have no interval.
    assert after.low is None and after.high is None
    assert after.baseline == 0.5
