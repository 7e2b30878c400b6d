"""Headwise attention: values, gradients, and when torch's own attention is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from support.tiny import make
from unsee.models.attention import MAX_ROWS, MIN_TOKENS, NAME, Headwise, headwise
from unsee.models.vlm import VLM

SHAPES = [(MIN_TOKENS, MIN_TOKENS), (577, 577), (MAX_ROWS + 40, 300), (300, MAX_ROWS + 40)]


def inputs(queries: int, keys: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Queries, keys and values with the memory layout that attention layers produce."""
    torch.manual_seed(0)
    sizes = (queries, keys, keys)
    made = [torch.randn(2, size, 3, 16).transpose(1, 2).to(dtype) for size in sizes]
    return [tensor.detach().requires_grad_(True) for tensor in made]


def away(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_headwise_values_and_gradients_match_float64(queries: int, keys: int) -> None:
    mine = inputs(queries, keys)
    exact = [tensor.detach().double().requires_grad_(True) for tensor in mine]
    given = torch.randn(2, 3, queries, 16).bfloat16()
    found = Headwise.apply(*mine, 0.25)
    wanted = scaled_dot_product_attention(*exact, scale=0.25)
    assert away(found.detach(), wanted.detach()) < 0.01
    grads = torch.autograd.grad(found, mine, given)
    for grad, true in zip(grads, torch.autograd.grad(wanted, exact, given.double()), strict=True):
        assert grad.dtype == torch.bfloat16
        assert away(grad, true) < 0.01


def test_headwise_default_scale_is_one_over_sqrt_width() -> None:
    q, k, v = inputs(MIN_TOKENS, MIN_TOKENS)
    found, _ = headwise(nn.Identity(), q, k, v, None, is_causal=False)
    assert torch.equal(found, Headwise.apply(q, k, v, 0.25).transpose(1, 2))


def ask(case: str) -> tuple[list[Tensor], Tensor | None, dict[str, object]]:
    """Inputs that the headwise kernel does not support."""
    tensors = inputs(8 if case == "few" else MIN_TOKENS, 8 if case == "few" else MIN_TOKENS)
    mask = (
        torch.ones(2, 1, MIN_TOKENS, MIN_TOKENS, dtype=torch.bool).tril()
        if case == "mask"
        else None
    )
    options: dict[str, object] = {"is_causal": case == "causal"}
    if case == "32 bits":
        tensors = inputs(MIN_TOKENS, MIN_TOKENS, torch.float32)
    return tensors, mask, options


@pytest.mark.parametrize("case", ["few", "mask", "causal", "32 bits"])
def test_headwise_falls_back_to_torch(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, mask, options = ask(case)
    monkeypatch.setattr(Headwise, "apply", None)
    found, _ = headwise(nn.Identity(), *tensors, mask, **options)
    wanted, _ = sdpa_attention_forward(nn.Identity(), *tensors, mask, **options)
    assert torch.equal(found, wanted)


def test_headwise_keeps_a_causal_module_causal(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Identity()
    module.is_causal = True
    monkeypatch.setattr(Headwise, "apply", None)
    q, k, v = inputs(MIN_TOKENS, MIN_TOKENS)
    found, _ = headwise(module, q, k, v, None)
    assert torch.equal(found, scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))


def test_pick_attention_sets_headwise_for_bfloat16_on_cpu(tmp_path: Path) -> None:
    folder = make("llava", tmp_path / "model")
    for dtype, wanted in ((torch.bfloat16, NAME), (torch.float32, "sdpa")):
        config = VLM.load(folder, dtype=dtype).model.config
        assert config._attn_implementation == wanted
        assert config.vision_config._attn_implementation == wanted
