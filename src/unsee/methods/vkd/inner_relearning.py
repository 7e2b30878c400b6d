"""What makes relearning slow: gradients that look ahead, weights that start anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from unsee.errors import ConfigError
from unsee.features.capture import flat, picture_features
from unsee.features.layers import choose_layers
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.types import Batch


def gradient_after_relearning(
    parameters: Mapping[str, nn.Parameter],
    attack: Sequence[Callable[[], Tensor]],
    loss: Callable[[], Tensor],
    lr: float,
    share: float = 1.0,
) -> None:
    """Adds to `.grad` the gradient of `loss` taken where the attacker's steps lead.

    The inner steps are Adam-like (each weight moves by `lr` along its normalised gradient), since
    real attackers use Adam; the outer gradient is first order: the inner path is not
    differentiated. The weights are put back exactly.

    Args:
        parameters: What the attacker may tune.
        attack: The attacker's loss, one entry a step.
        loss: What should be low after the attack.
        lr: Size of the inner steps.
        share: What the gradient counts.

    Source: first-order MAML, arXiv 1703.03400, section 5.2; its use against relearning follows
    TAR, arXiv 2408.00761.
    """
    values = list(parameters.values())
    start = [p.detach().clone() for p in values]
    squares = [torch.zeros_like(p) for p in values]
    for number, objective in enumerate(attack, 1):
        grads: Sequence[Tensor | None] = torch.autograd.grad(objective(), values, allow_unused=True)
        with torch.no_grad():
            for value, square, grad in zip(values, squares, grads, strict=True):
                if grad is None:
                    continue
                square.mul_(0.9).addcmul_(grad, grad, value=0.1)
                corrected = square / (1 - 0.9**number)
                value.addcdiv_(grad, corrected.sqrt() + 1e-8, value=-lr)
    (share * loss()).backward()
    with torch.no_grad():
        for value, old in zip(values, start, strict=True):
            value.copy_(old)


def weight_proximity(values: Mapping[str, nn.Parameter], old: Mapping[str, Tensor]) -> Tensor:
    """How near weights still are to what they were: 1 where they are, 0 from their norm away on.

    Args:
        values: The weights.
        old: What they were.

    Source: arXiv 2505.22310, which maximises the L2 distance. Differs: relative to the norm of
    what they were, and bounded by it.
    """
    moved = torch.stack([(values[n] - old[n]).float().square().sum() for n in values]).sum()
    norm = torch.stack([old[n].float().square().sum() for n in values]).sum()
    # The small number gives the root a gradient where nothing has moved yet.
    return (1 - (moved / norm + 1e-12).sqrt()).clamp(min=0)


@torch.no_grad()
def mix_with_noise(parameters: Mapping[str, nn.Parameter], share: float) -> None:
    """Replaces a share of every weight by noise of the tensor's own mean and spread, in place.

    Source: UNDO, arXiv 2506.06278, which noises the whole model before it is distilled anew.
    """
    for value in parameters.values():
        spread = value.std(correction=0)
        value.lerp_(value.mean() + spread * torch.randn_like(value), share)


def noise_projector(vlm: VLM, trained: Collection[str], share: float) -> None:
    """Starts the projector from noise, or from a mixture with it; see `mix_with_noise`.

    Args:
        vlm: The model.
        trained: Names of the parameters that are trained after it.
        share: Of every weight.

    Raises:
        ConfigError: If the projector would stay noise.
    """
    projector = vlm.parameters("projector")
    if not projector.keys() <= set(trained):
        raise ConfigError(
            "projector_noise mixes noise into the projector, which is not trained here. Type "
            "projector_noise=0, or train it: trains=visual, and train_layers=all or with projector."
        )
    mix_with_noise(projector, share)


def relearning_loss(vlm: VLM, batch: Batch, teacher: VLM, answers: bool) -> Tensor:
    """What an attacker minimises: the answers' loss, or the way back to what the LLM read."""
    if answers:
        return nll(vlm.logits(batch), batch.labels)
    layers, inputs = choose_layers(vlm, ["projector"]), vlm.visual_inputs(batch)
    with torch.no_grad():
        old = picture_features(teacher, inputs, layers)
    now = picture_features(vlm, inputs, layers)
    return torch.stack(
        [(flat(now[n]) - flat(old[n])).square().mean() / flat(old[n]).var() for n in layers]
    ).mean()
