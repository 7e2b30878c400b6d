"""Saliency of weights and neurons for the forget set: Fisher ratios and activation ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from unsee.data.selection import evenly_spaced, one_sample_per_picture
from unsee.errors import TrainingError
from unsee.features.capture import flat, picture_features
from unsee.features.layers import choose_layers
from unsee.features.neurons import neuron_hooks, zero_neurons
from unsee.features.pictures import picture_batches
from unsee.losses import nll
from unsee.models.vlm import VLM
from unsee.types import Batch, Sample


def squared_gradients(
    parameters: Mapping[str, nn.Parameter], losses: Sequence[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Returns each parameter's mean squared gradient over losses: a diagonal Fisher estimate.

    Args:
        parameters: The weights, by name.
        losses: Functions that compute a scalar loss.
    """
    values = list(parameters.values())
    wanted = [p.requires_grad for p in values]
    for parameter in values:
        parameter.requires_grad_(True)
    # The square of a gradient of 1e-4 is 0 in float16.
    total = {n: torch.zeros_like(p, dtype=_wide(p.dtype)) for n, p in parameters.items()}
    for loss in losses:
        grads = torch.autograd.grad(loss(), values, allow_unused=True)
        for name, grad in zip(total, grads, strict=True):
            if grad is not None:
                total[name] += grad.to(total[name].dtype).square() / len(losses)
    for parameter, keep in zip(values, wanted, strict=True):
        parameter.requires_grad_(keep)
    return total


def ratio_masks(
    forget: Mapping[str, Tensor],
    retain: Mapping[str, Tensor],
    *,
    fraction: float = 0.0,
    threshold: float = 0.0,
    eps: float = 1e-12,
    eps_forget: float = 0.0,
) -> dict[str, Tensor]:
    """Returns masks that are 1 where forget gradient^2 over retain gradient^2 is high.

    Args:
        forget: Squared gradients on the forget set, by parameter.
        retain: Squared gradients on the retain set.
        fraction: Share of all weights to select, the highest ratios first; 0 uses `threshold`.
        threshold: Smallest ratio that is selected.
        eps: Added to the denominator.
        eps_forget: Added to the numerator. At 0, weights without a forget gradient are never
            selected; else a weight without any gradient has the ratio of the two constants.

    Raises:
        TrainingError: If no weight is selected.

    Source: MMUnlearner, arXiv 2502.11051, its weight saliency map; in its authors' code both
    constants are 1e-15.
    """
    ratios = {n: (forget[n] + eps_forget) / (retain[n] + eps) for n in forget}
    if fraction > 0:
        flat = torch.cat([r.flatten() for r in ratios.values()])
        count = max(1, round(fraction * flat.numel()))
        threshold = float(flat.topk(count).values[-1])
    chosen = {n: r >= threshold for n, r in ratios.items()}
    if eps_forget == 0:
        chosen = {n: some & (forget[n] > 0) for n, some in chosen.items()}
    masks = {n: some.to(ratios[n].dtype) for n, some in chosen.items()}
    if not any(bool(m.any()) for m in masks.values()):
        raise TrainingError(
            f"the saliency mask selects no weight (threshold {threshold:g}). Lower "
            "saliency_threshold."
        )
    return masks


def _wide(dtype: torch.dtype) -> torch.dtype:
    """float32 instead of float16; other dtypes have the range for squares."""
    return torch.float32 if dtype == torch.float16 else dtype


def gradient_mask(masks: Mapping[str, Tensor]) -> Callable[[Mapping[str, nn.Parameter]], None]:
    """Multiplies gradients by masks in place, for `unsee.training.loop.fit`."""

    def apply(parameters: Mapping[str, nn.Parameter]) -> None:
        for name, keep in masks.items():
            grad = parameters[name].grad
            if grad is not None:
                grad.mul_(keep)

    return apply


def mask_counts(masks: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns how many weights masks select, of how many, for the record."""
    chosen = sum(int(mask.count_nonzero()) for mask in masks.values())
    return {"chosen": chosen, "of": sum(mask.numel() for mask in masks.values())}


@torch.no_grad()
def mean_activations(
    vlm: VLM, batches: Iterable[dict[str, Tensor]], modules: Sequence[str]
) -> dict[str, Tensor]:
    """Returns the mean absolute input of modules over pictures and tokens [channels].

    Args:
        vlm: The model.
        batches: Visual inputs of pictures.
        modules: Names of the modules.
    """
    total: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def keep(name: str, z: Tensor) -> None:
        values = z.abs().flatten(0, -2)
        total[name] = total.get(name, 0) + values.sum(0)
        count[name] = count.get(name, 0) + values.shape[0]

    with neuron_hooks(vlm, {name: partial(keep, name) for name in modules}):
        for inputs in batches:
            vlm.family.visual_forward(vlm.model, inputs)
    return {name: total[name] / count[name] for name in modules}


def choose_neurons(
    forget: Mapping[str, Tensor], retain: Mapping[str, Tensor], fraction: float
) -> dict[str, Tensor]:
    """Returns the neurons with the highest forget-to-retain activation ratio: bool [channels].

    Args:
        forget: Mean absolute activation of each module's neurons on the forget set.
        retain: Mean absolute activation on the retain set.
        fraction: Share of all neurons to choose.

    Raises:
        TrainingError: If no neuron is chosen.
    """
    ratios = {n: forget[n] / (retain[n] + 1e-6) for n in forget}
    flat = torch.cat(list(ratios.values()))
    count = round(fraction * flat.numel())
    if count < 1:
        raise TrainingError(
            f"prune={fraction} of {flat.numel()} neurons is none. Give a larger fraction, or 0 to "
            "prune nothing."
        )
    limit = flat.topk(count).values[-1]
    return {n: r >= limit for n, r in ratios.items()}


def prune_neurons(
    vlm: VLM, forget: Sequence[Sample], retain: Sequence[Sample], fraction: float
) -> dict[str, Tensor]:
    """Zeroes the outgoing weights of the visual MLP neurons that `choose_neurons` chooses.

    Args:
        vlm: The model.
        forget: Samples to forget.
        retain: Samples to keep.
        fraction: Share of all visual neurons to zero.

    Returns:
        By the outer linear's weight name, a gradient mask that is 0 on the zeroed weights.
    """
    outer = [module for _, module in vlm.family.visual_mlps(vlm.model).values()]
    forget_activity, retain_activity = (
        mean_activations(
            vlm, picture_batches(vlm, [s.picture for s in side if s.picture is not None]), outer
        )
        for side in (one_sample_per_picture(forget), one_sample_per_picture(retain))
    )
    return zero_neurons(vlm, choose_neurons(forget_activity, retain_activity, fraction))


def gradient_masks(
    vlm: VLM,
    forget: Sequence[Sample],
    retain: Sequence[Sample],
    parameters: Mapping[str, nn.Parameter],
    probes: Callable[[VLM, Sequence[Sample]], Sequence[Callable[[], Tensor]]],
    *,
    fraction: float,
    prune: float,
) -> dict[str, Tensor]:
    """Returns gradient masks that freeze weights that are not salient, and pruned neurons.

    Args:
        vlm: The model; `prune` zeroes some of its weights.
        forget: Samples to forget.
        retain: Samples to keep.
        parameters: The trained weights, by name.
        probes: Returns losses of samples, from whose gradients saliency is computed.
        fraction: Share of the weights to train; 0 trains all. See `ratio_masks`.
        prune: Share of visual neurons to zero; 0 prunes nothing. See `prune_neurons`.
    """
    masks: dict[str, Tensor] = {}
    if fraction > 0:
        masks = ratio_masks(
            squared_gradients(parameters, probes(vlm, forget)),
            squared_gradients(parameters, probes(vlm, retain)),
            fraction=fraction,
        )
    if prune > 0:
        for name, keep in prune_neurons(vlm, forget, retain, prune).items():
            if name in parameters:
                masks[name] = masks.get(name, 1) * keep
    return masks


def answer_probes(vlm: VLM, samples: Sequence[Sample]) -> list[Callable[[], Tensor]]:
    """Returns functions of the answers' loss on small batches, for `squared_gradients`."""

    def answers(batch: Batch) -> Tensor:
        return nll(vlm.logits(batch), batch.labels)

    return [partial(answers, vlm.collate(batch)) for batch in _small_batches(samples)]


def picture_probes(vlm: VLM, samples: Sequence[Sample]) -> list[Callable[[], Tensor]]:
    """Returns random projections of the features that the LLM reads, for `squared_gradients`.

    The LLM does not run. Their expected squared gradient is the Fisher information of a Gaussian
    around these features.
    """

    def project(inputs: dict[str, Tensor]) -> Tensor:
        read = picture_features(vlm, inputs, choose_layers(vlm, ["projector"]))
        out = torch.cat([flat(tokens).flatten() for tokens in read.values()])
        return (out * torch.randn_like(out)).mean()

    return [
        partial(project, vlm.collate_pictures([vlm.image(s.picture) for s in some if s.picture]))
        for some in _small_batches(samples)
    ]


def _small_batches(
    samples: Sequence[Sample], most: int = 128, size: int = 8
) -> list[Sequence[Sample]]:
    """Returns batches of `size` over at most `most` evenly spaced samples."""
    chosen = evenly_spaced(samples, most, "floor")
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]
