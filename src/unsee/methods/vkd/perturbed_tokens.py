"""Perturbed visual tokens: near those of the people to forget, and not theirs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unsee.features.capture import Features, layer_outputs, picture_features
from unsee.methods.vkd.frozen_prefix import replayed
from unsee.models.vlm import VLM

# The band of cosines between a token and the perturbed one.
COSINE = (0.3, 0.8)

# Number of tokens that a mixture is made of, at most.
MIXED = 256


def perturbed(tokens: Tensor, low: float, high: float) -> Tensor:
    """Returns tokens of equal length, turned by an angle whose cosine is drawn from a band.

    Each is turned towards a random mixture of all tokens, so that it stays among features that the
    model computes.

    Source: after SGPVT (ACL 2026), whose perturbed visual tokens lie in a cosine band.

    Args:
        tokens: [..., dim].
        low: Smallest cosine of the angle.
        high: Largest cosine of the angle.
    """
    flat = tokens.reshape(-1, tokens.shape[-1])
    length = flat.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    unit = flat / length
    # Some of the tokens span as much as all, and cost less.
    some = flat[torch.randperm(len(flat), device=flat.device)[:MIXED]]
    weights = torch.randn(len(flat), len(some), dtype=flat.dtype, device=flat.device)
    mixture = weights @ (some - some.mean(0))
    across = mixture - (mixture * unit).sum(-1, keepdim=True) * unit
    across = across / across.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    cosine = torch.empty_like(length).uniform_(low, high)
    turned: Tensor = length * (cosine * unit + (1 - cosine**2).sqrt() * across)
    return turned.reshape(tokens.shape)


def near_features(
    student: VLM,
    teacher: VLM,
    inputs: dict[str, Tensor],
    layers: Sequence[str],
    cosine: tuple[float, float] = COSINE,
) -> tuple[Features, Features]:
    """Returns the student's and the teacher's features of perturbed tokens, by layer.

    The tokens are the teacher's at a layer of the encoder that is drawn, perturbed; both models go
    on from there, so that nothing but the layers above it is compared.

    Args:
        student: The model being unlearned.
        teacher: The frozen start model.
        inputs: The visual inputs of pictures to forget.
        layers: Names of the visual layers to compare.
        cosine: The band of cosines; see `perturbed`.
    """
    names = list(teacher.family.visual_layers(teacher.model))
    encoder = [name for name in names if name.startswith("encoder.")]
    at = encoder[int(torch.randint(len(encoder), ()))]
    above = [name for name in layers if names.index(name) > names.index(at)]
    with torch.no_grad():
        tokens = perturbed(layer_outputs(teacher, inputs, [at])[at], *cosine)
        with replayed(teacher, {at: tokens}):
            wanted = picture_features(teacher, inputs, above)
    with replayed(student, {at: tokens}):
        return picture_features(student, inputs, above), wanted
