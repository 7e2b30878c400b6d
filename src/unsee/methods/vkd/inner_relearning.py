"""Inner relearning, the part of VKD that makes relearning slower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unsee.features.capture import flat, picture_features
from unsee.features.layers import choose_layers
from unsee.models.vlm import VLM
from unsee.types import Batch


def gradient_after_relearning(
    parameters: Mapping[str, nn.Parameter],
    attack: Sequence[Callable[[], Tensor]],
    loss: Callable[[], Tensor],
    lr: float,
    share: float = 1.0,
) -> None:
    """Adds to `.grad` the gradient of `loss` at the weights that an inner attack leads to.

    The inner steps are Adam-like (each weight moves by `lr` along its normalised gradient), since
    real attackers use Adam. The outer gradient is first order: the inner steps are not
    differentiated. The weights are restored exactly.

    Args:
        parameters: What the attacker tunes, by name.
        attack: The attacker's loss, one entry for each inner step.
        loss: The loss that should be low after the attack.
        lr: Learning rate of the inner steps.
        share: Weight of the gradient.

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


def inner_attack(
    vlm: VLM, batches: Sequence[Batch], steps: int, teacher: VLM
) -> list[Callable[[], Tensor]]:
    """Returns the inner attacker's loss for each of their steps.

    The attacker goes over the same few batches again and again, as one who has few pictures does,
    so that the teacher runs once for each batch.

    Args:
        vlm: The model being unlearned.
        batches: Batches of forget samples.
        steps: Number of steps.
        teacher: The frozen start model.
    """
    losses = [relearning_loss(vlm, batch, teacher) for batch in batches]
    return [losses[number % len(losses)] for number in range(steps)]


def relearning_loss(vlm: VLM, batch: Batch, teacher: VLM) -> Callable[[], Tensor]:
    """Returns a function that computes the inner attacker's loss on forget samples.

    It is the squared distance between the features that the LLM reads and the teacher's, in
    variances of the teacher's.

    Args:
        vlm: The model being unlearned.
        batch: Forget samples.
        teacher: The frozen start model.
    """
    layers, inputs = choose_layers(vlm, ["projector"]), vlm.visual_inputs(batch)
    with torch.no_grad():
        features = picture_features(teacher, inputs, layers)
    target = {name: flat(values) for name, values in features.items()}
    variance = {name: values.var() for name, values in target.items()}

    def loss() -> Tensor:
        known = picture_features(vlm, inputs, layers)
        distances = [(flat(known[n]) - target[n]).square().mean() / variance[n] for n in layers]
        return torch.stack(distances).mean()

    return loss
