"""Attention in bfloat16 on CPUs, head by head, as plain matrix products: twice as fast there.

torch's own CPU kernel spends most of its time outside the matrix products. Rounding is that of
transformers' "eager" attention: scores are in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "headwise"
MIN_TOKENS = 256  # with fewer keys, many small products cost more than they save
MAX_ROWS = 1024  # queries at once, which bounds the memory


class Headwise(torch.autograd.Function):
    """softmax(scale q k^T) v without a mask; scores are recomputed in the backward pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The attention's output [batch, heads, tokens, width].

        Args:
            ctx: The autograd context.
            q: Queries [batch, heads, tokens, width].
            k: Keys [batch, heads, tokens, width].
            v: Values [batch, heads, tokens, width].
            scale: Factor of the scores.
        """
        out = v.new_empty(*q.shape[:-1], v.shape[-1])
        for place, rows in _pieces(q):
            weights = _weights(q[place][rows], k[place], scale)
            out[place][rows] = weights.to(v.dtype) @ v[place]
        ctx.save_for_backward(q, k, v, out)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of queries, keys and values (arXiv 2205.14135, appendix B.2)."""
        q, k, v, out = ctx.saved_tensors
        grads = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        delta = (grad.float() * out.float()).sum(-1, keepdim=True)
        for place, rows in _pieces(q):
            queries, grad_out = q[place][rows].contiguous(), grad[place][rows].contiguous()
            keys, values = k[place].contiguous(), v[place].contiguous()
            weights = _weights(queries, keys, ctx.scale)
            grads[2][place] += weights.to(v.dtype).T @ grad_out
            grad_scores = (grad_out @ values.T).float().sub_(delta[place][rows]).mul_(weights)
            grad_scores = grad_scores.mul_(ctx.scale).to(q.dtype)
            grads[0][place][rows] = grad_scores @ keys
            grads[1][place] += grad_scores.T @ queries
        return *grads, None


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return (q @ k.T).float().mul_(scale).softmax(-1)


def _pieces(q: Tensor) -> Iterator[tuple[tuple[int, int], slice]]:
    """The index of every head of every picture, with slices of at most `MAX_ROWS` queries."""
    for picture in range(q.shape[0]):
        for head in range(q.shape[1]):
            for start in range(0, q.shape[2], MAX_ROWS):
                yield (picture, head), slice(start, start + MAX_ROWS)


def headwise(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """The attention function for transformers; torch's own where this one is not faster.

    Args:
        module: The attention module.
        query: [batch, heads, tokens, width].
        key: [batch, heads, tokens, width].
        value: [batch, heads, tokens, width].
        attention_mask: Mask of transformers' SDPA attention; this function is used without one.
        options: Further arguments of transformers' attention interface.

    Returns:
        The output [batch, tokens, heads, width], and None for the attention weights.
    """
    causal = options.get("is_causal")
    applies = (
        attention_mask is None
        and not (getattr(module, "is_causal", True) if causal is None else causal)
        and not any(options.get(name) for name in ("dropout", "softcap", "output_attentions"))
        and all(options.get(name) is None for name in ("position_bias", "cache"))
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[1] == query.shape[1]
        and key.shape[2] >= MIN_TOKENS
        and not torch.compiler.is_compiling()
    )
    if not applies:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    attend: Any = Headwise.apply
    return attend(query, key, value, scale).transpose(1, 2), None


def pick_attention(model: Any) -> None:
    """Sets this attention for a model in bfloat16 on a CPU that uses torch's own."""
    suits = model.device.type == "cpu" and model.dtype == torch.bfloat16
    if suits and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, headwise)
AttentionMaskInterface.register(NAME, sdpa_mask)
