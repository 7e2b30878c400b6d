"""Loss functions against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from unsee.losses import (
    capped,
    masked_kl,
    nll,
    position_kl,
    scaled_mse,
    sequence_logps,
    sequence_nll,
    token_logps,
)


def two_rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of log-probabilities over a vocabulary of 2, and labels of 2 and 1 answer tokens."""
    probabilities = torch.tensor(
        [
            [[0.5, 0.5], [0.25, 0.75], [0.9, 0.1], [0.5, 0.5]],
            [[0.5, 0.5], [0.8, 0.2], [0.5, 0.5], [0.5, 0.5]],
        ]
    )
    labels = torch.tensor([[-100, -100, 1, 0], [-100, -100, 0, -100]])
    return probabilities.log(), labels


def test_token_logps_reads_the_position_before_each_label() -> None:
    logps, mask = token_logps(*two_rows())
    expected = torch.tensor([[0.0, math.log(0.75), math.log(0.9)], [0.0, math.log(0.8), 0.0]])
    assert torch.allclose(logps, expected)
    assert mask.tolist() == [[0, 1, 1], [0, 1, 0]]


def test_sequence_logps_sums_and_sequence_nll_averages() -> None:
    logits, labels = two_rows()
    assert sequence_logps(logits, labels).tolist() == pytest.approx(
        [math.log(0.75 * 0.9), math.log(0.8)]
    )
    assert sequence_nll(logits, labels).tolist() == pytest.approx(
        [-math.log(0.75 * 0.9) / 2, -math.log(0.8)]
    )
    assert float(nll(logits, labels)) == pytest.approx(
        (-math.log(0.75 * 0.9) / 2 - math.log(0.8)) / 2
    )


def test_sequence_nll_of_a_row_without_answer_is_zero() -> None:
    logits, labels = two_rows()
    labels[1] = -100
    assert float(sequence_nll(logits, labels)[1]) == 0.0


def test_masked_kl_is_zero_of_itself_and_matches_hand_computed_values() -> None:
    logits, labels = two_rows()
    assert float(masked_kl(logits, logits, labels)) == pytest.approx(0.0, abs=1e-7)
    flat = torch.zeros_like(logits)

    def kl(p: float) -> float:
        return p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)

    expected = ((kl(0.25) + kl(0.9)) / 2 + kl(0.8)) / 2
    assert float(masked_kl(logits, flat, labels)) == pytest.approx(expected, rel=1e-5)


def test_position_kl_matches_the_published_call() -> None:
    """All rows and positions, as TOFU's code calls kl_div on logits without a mask."""
    torch.manual_seed(0)
    reference, logits = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    published = F.kl_div(
        logits.log_softmax(-1).view(-1, 7),
        reference.log_softmax(-1).view(-1, 7),
        reduction="batchmean",
        log_target=True,
    )
    assert float(position_kl(reference, logits)) == pytest.approx(float(published), rel=1e-5)


def test_capped_stops_the_gradient_above() -> None:
    below, above = torch.tensor(2.0, requires_grad=True), torch.tensor(9.0, requires_grad=True)
    capped(below, 8.0).backward()
    capped(above, 8.0).backward()
    assert below.grad is not None and float(below.grad) == 1.0
    assert above.grad is not None and float(above.grad) == 0.0


def test_distance_matches_a_hand_computed_value() -> None:
    h, t = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    assert float(scaled_mse(h, t, torch.tensor(0.5))) == pytest.approx(2.0)
