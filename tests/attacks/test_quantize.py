"""The attack `quantize`: rounded weights, and weights that a library stores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unsee.attacks import Subject
from unsee.attacks.quantize import Quantize, round_to_nearest
from unsee.errors import ConfigError


def test_round_to_nearest_equals_hand_computed_rows() -> None:
    rows = torch.tensor([[7.0, -3.4, 0.4, 1.6], [0.0, 0.0, 0.0, 0.0], [0.14, 0.05, -0.14, 0.01]])
    # 4 bits: steps of 7/7 = 1 and 0.14/7 = 0.02; -3.4 becomes -3, 0.05 becomes 0.04 (2.5 rounds
    # to even).
    expected = [[7.0, -3.0, 0.0, 2.0], [0.0] * 4, [0.14, 0.04, -0.14, 0.0]]
    assert torch.allclose(round_to_nearest(rows, 4), torch.tensor(expected), atol=1e-6)
    # 8 bits: steps of 7/127.
    assert float(round_to_nearest(rows, 8)[0, 1]) == pytest.approx(round(-3.4 * 127 / 7) * 7 / 127)


def test_quantize_changes_only_matrices_of_its_part(subject: Subject) -> None:
    quantized = Quantize(bits=4, modules="visual").apply(subject).vlm
    assert quantized.hash("language") == subject.vlm.hash("language")
    for name, weight in quantized.parameters("visual").items():
        before = subject.vlm.parameters("visual")[name]
        if weight.dim() < 2:
            assert torch.equal(weight, before)
        else:
            assert all(len(row.unique()) <= 15 for row in weight.flatten(1))
    with pytest.raises(ConfigError, match="has no bits=4"):
        Quantize(bits=4, scheme="torchao").apply(subject)


@pytest.mark.parametrize(
    ("scheme", "bits"), [("torchao", 8), ("bitsandbytes", 8), ("bitsandbytes", 4)]
)
def test_quantize_by_a_library_bounds_the_error_or_names_the_extra(
    scheme: Any, bits: int, subject: Subject
) -> None:
    attack = Quantize(bits=bits, scheme=scheme)
    try:
        __import__(scheme)
    except ImportError:
        with pytest.raises(ConfigError, match="pip install 'unsee\\[quantized\\]'"):
            attack.apply(subject)
        return
    for name, weight in attack.apply(subject).vlm.parameters().items():
        before = subject.vlm.parameters()[name]
        bound = before.abs().max() * (0.3 if bits == 4 else 0.02)
        assert float((weight - before).detach().abs().max()) <= float(bound.detach())
