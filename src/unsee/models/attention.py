"""Attention in bfloat16 on CPUs, head by head, as plain matrix products: twice as fast there.

torch's own kernel for CPUs spends most of its time beside the products. What it rounds, this one
rounds as transformers' "eager" attention does: scores are held in bfloat16.
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


FEW = 256  # tokens, below which calling many small products costs more than it saves


ROWS = 1024  # most queries at once: what bounds the memory


class Headwise(torch.autograd.Function):
    """softmax(scale q k^T) v without a mask; the scores are computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Of queries, keys and values, each [batch, heads, tokens, width], the values' average."""
        out = v.new_empty(*q.shape[:-1], v.shape[-1])
        for place, rows in _pieces(q):
            weights = _weights(q[place][rows], k[place], scale)
            out[place][rows] = weights.to(v.dtype) @ v[place]
        ctx.save_for_backward(q, k, v, out)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of queries, keys and values (arXiv 2205.14135, appendix B.2)."""
        q, k, v, out = ctx.saved_tensors
        grads = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        shares = (given.float() * out.float()).sum(-1, keepdim=True)
        for place, rows in _pieces(q):
            queries, far = q[place][rows].contiguous(), given[place][rows].contiguous()
            keys, values = k[place].contiguous(), v[place].contiguous()
            weights = _weights(queries, keys, ctx.scale)
            grads[2][place] += weights.to(v.dtype).T @ far
            back = (far @ values.T).float().sub_(shares[place][rows]).mul_(weights)
            back = back.mul_(ctx.scale).to(q.dtype)
            grads[0][place][rows] = back @ keys
            grads[1][place] += back.T @ queries
        return *grads, None


def _weights(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return (q @ k.T).float().mul_(scale).softmax(-1)


def _pieces(q: Tensor) -> Iterator[tuple[tuple[int, int], slice]]:
    """Every head of every picture, and its queries in pieces."""
    for picture in range(q.shape[0]):
        for head in range(q.shape[1]):
            for start in range(0, q.shape[2], ROWS):
                yield (picture, head), slice(start, start + ROWS)


def headwise(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; torch's own wherever this one would not be faster."""
    causal = options.get("is_causal")
    plain = (
        attention_mask is None
        and not (getattr(module, "is_causal", True) if causal is None else causal)
        and not any(options.get(name) for name in ("dropout", "softcap", "output_attentions"))
        and all(options.get(name) is None for name in ("position_bias", "cache"))
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[1] == query.shape[1]
        and key.shape[2] >= FEW
        and not torch.compiler.is_compiling()
    )
    if not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    attend: Any = Headwise.apply
    return attend(query, key, value, scale).transpose(1, 2), None


def pick_attention(model: Any) -> None:
    """Gives a model in bfloat16 on a CPU this attention in place of torch's own."""
    suits = model.device.type == "cpu" and model.dtype == torch.bfloat16
    if suits and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, headwise)


AttentionMaskInterface.register(NAME, sdpa_mask)
