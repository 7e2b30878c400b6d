"""Visual representations of a model: which layers there are, and what they say of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unsee.augment import augment
from unsee.errors import ConfigError
from unsee.losses import cosine_distance, feature_kl, scaled_mse
from unsee.model import VLM
from unsee.types import Batch, Data, Picture, Sample

# What a layer says of pictures: [pictures, tokens, dim] where the family aligns them, else one
# [tokens, dim] a picture, as many as its tiles or its resolution make.
Tokens = Tensor | list[Tensor]
Features = dict[str, Tokens]
# Mean [tokens, dim] and mean variance (scalar) by layer.
Statistics = dict[str, tuple[Tensor, Tensor]]
Distance = Callable[[Tokens, Tokens, Tensor], Tensor]
Viewer = Callable[[Sequence[Sample], np.random.Generator, float], Batch]
BATCH = 1 << 19  # most pixel values that are looked at in one batch
HELD = 1 << 24  # most bytes that `Shift` keeps of each side's features


def choose_layers(vlm: VLM, wanted: Sequence[str]) -> list[str]:
    """The visual layers that `wanted` names, in the model's order.

    Args:
        vlm: The model.
        wanted: Short names ("encoder.3"), or groups: "projector" (all that the LLM reads: the
            projector, and what goes around it), "encoder" (every encoder layer), "upper" (the upper
            half of the encoder and all that the LLM reads), "all".

    Raises:
        ConfigError: If a name matches no layer, or nothing is wanted.
    """
    layers = list(vlm.family.visual_layers(vlm.model))
    encoder = [name for name in layers if name.startswith("encoder.")]
    read = [name for name in layers if name not in encoder]
    groups = {
        "all": layers,
        "encoder": encoder,
        "projector": read,
        "upper": [*encoder[len(encoder) // 2 :], *read],
    }
    chosen: set[str] = set()
    for name in wanted:
        if name in groups:
            chosen.update(groups[name])
        elif name in layers:
            chosen.add(name)
        else:
            raise ConfigError(
                f"layer '{name}' matches nothing. Layers of this model: {', '.join(layers)}; "
                f"groups: {', '.join(groups)}."
            )
    if not chosen:
        raise ConfigError(f"no layer was chosen. Layers of this model: {', '.join(layers)}.")
    return [name for name in layers if name in chosen]


def hidden_states(vlm: VLM, batch: Batch, number: int | None) -> Tensor:
    """What a block of the LLM says of a batch [batch, seq, dim].

    Args:
        vlm: The model.
        batch: Questions with answers.
        number: Which block, from 0; None is the one a third of the way up.

    Raises:
        ConfigError: If there are not as many.
    """
    modules = list(vlm.family.language_layers(vlm.model).values())
    number = len(modules) // 3 if number is None else number
    if number >= len(modules):
        raise ConfigError(
            f"layer={number} is not there: this model's LLM has {len(modules)} blocks, 0 to "
            f"{len(modules) - 1}."
        )
    return vlm.family.hidden(vlm.model, batch.inputs, modules[number])


@contextmanager
def capture(vlm: VLM, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the raw outputs of visual layers during the forward passes of the block.

    A second forward pass overwrites the first. `by_picture` makes features of them.
    """
    modules = vlm.family.visual_layers(vlm.model)
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            found[name] = output if isinstance(output, Tensor) else output[0]

        return hook

    handles = [
        vlm.model.get_submodule(modules[name]).register_forward_hook(keep(name)) for name in names
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def observe(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Raw outputs of the named layers, for `by_picture`; only the visual part runs."""
    with capture(vlm, names) as found:
        vlm.family.visual_forward(vlm.model, inputs)
    return found


def represent(vlm: VLM, inputs: dict[str, Tensor], names: Sequence[str]) -> Features:
    """Representations of pictures at the named layers; only the visual part runs."""
    return by_picture(vlm, observe(vlm, inputs, names), inputs)


def by_picture(vlm: VLM, outputs: Mapping[str, Tensor], inputs: dict[str, Tensor]) -> Features:
    """Features from the raw outputs of layers.

    Args:
        vlm: The model.
        outputs: From `capture`, by layer.
        inputs: The visual inputs that they come from.
    """
    if vlm.family.aligned:
        return dict(outputs)
    return {name: vlm.family.split(output, inputs) for name, output in outputs.items()}


def flat(tokens: Tokens) -> Tensor:
    """All pictures' values in one tensor."""
    return tokens if isinstance(tokens, Tensor) else torch.cat([t.flatten() for t in tokens])


def distance_between(name: str) -> Distance:
    """The distance of that name: (h, t, variance of the layer) to one value a picture.

    Of pictures that are not aligned, t may have one token where h has many: it stands at each.
    """
    named: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
        "mse": scaled_mse,
        "cosine": lambda h, t, _: cosine_distance(h, t),
        "kl": lambda h, t, _: feature_kl(h, t),
    }
    distance = named[name]

    def between(h: Tokens, t: Tokens, variance: Tensor) -> Tensor:
        if isinstance(h, Tensor) and isinstance(t, Tensor):
            return distance(h, t, variance)
        pairs = zip(h, t, strict=True)
        return torch.cat([distance(a[None], b[None], variance) for a, b in pairs])

    return between


def layer_parameters(vlm: VLM, part: str, wanted: Sequence[str]) -> dict[str, nn.Parameter]:
    """The parameters of a part that lie in the wanted layers; "all" is the whole part.

    Raises:
        ConfigError: If a name matches no layer, or the layers have no weights in that part.
    """
    parameters = vlm.parameters(part)
    if "all" in wanted:
        return parameters
    modules = vlm.family.visual_layers(vlm.model)
    prefixes = tuple(f"{modules[name]}." for name in choose_layers(vlm, wanted))
    chosen = {n: p for n, p in parameters.items() if n.startswith(prefixes)}
    if not chosen:
        raise ConfigError(f"layers {', '.join(wanted)} have no weights in the part '{part}'.")
    return chosen


def one_a_picture(samples: Sequence[Sample]) -> list[Sample]:
    """The first sample of every picture, with that picture alone; text-only ones are left out."""
    first: dict[str, Sample] = {}
    for sample in samples:
        for picture in sample.pictures:
            alone = replace(sample, picture=picture, further=()) if sample.further else sample
            first.setdefault(picture.source, alone)
    return list(first.values())


def seen_side(vlm: VLM, picture: Picture) -> int | None:
    """Shorter side (pixels) of all that the model sees of any picture; None if it varies."""
    if not vlm.family.aligned:
        return None
    return min(vlm.collate_pictures([vlm.image(picture)])["pixel_values"].shape[-2:])


def viewer(vlm: VLM, picture: Picture, answers: bool) -> Viewer:
    """What makes a batch of random views of samples' pictures; see `unsee.augment.augment`.

    Args:
        vlm: The model.
        picture: One of them, which tells how large the model sees them.
        answers: Whether the batch has their text, too.
    """
    side = seen_side(vlm, picture)

    def collate(samples: Sequence[Sample], rng: np.random.Generator, strength: float) -> Batch:
        view = partial(augment, rng=rng, strength=strength, side=side)
        if answers:
            return vlm.collate(samples, transform=view)
        images = [view(vlm.image(s.picture)) for s in samples if s.picture is not None]
        ids = tuple(s.id for s in samples)
        return Batch(vlm.collate_pictures(images), torch.empty(len(samples), 0), ids)

    return collate


def picture_batches(vlm: VLM, pictures: Sequence[Picture]) -> Iterator[dict[str, Tensor]]:
    """Visual inputs of all the pictures: 32 at a time, fewer where they are large."""
    size = 32
    if pictures:
        one = vlm.collate_pictures([vlm.image(pictures[0])])["pixel_values"]
        size = max(1, min(size, BATCH // one.numel()))
    for start in range(0, len(pictures), size):
        yield vlm.collate_pictures([vlm.image(p) for p in pictures[start : start + size]])


@torch.no_grad()
def layer_statistics(
    vlm: VLM, batches: Iterable[dict[str, Tensor]], names: Sequence[str]
) -> Statistics:
    """Mean [tokens, dim] and mean variance (scalar) of each layer over the pictures.

    Where the family does not align pictures, the mean is over all tokens too, [1, dim], and every
    picture counts alike, however many tokens it has.
    """
    return _statistics((represent(vlm, inputs, names) for inputs in batches), names)


def _statistics(found: Iterable[Features], names: Sequence[str]) -> Statistics:
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    count = 0
    for features in found:
        for name, value in features.items():
            if isinstance(value, list):
                means = [(v.double().mean(0), v.double().square().mean(0)) for v in value]
                total, square = (
                    torch.stack(some).sum(0)[None] for some in zip(*means, strict=True)
                )
            else:
                value = value.double()
                total, square = value.sum(0), value.square().sum(0)
            sums[name] = sums.get(name, 0) + total
            squares[name] = squares.get(name, 0) + square
        count += len(next(iter(features.values())))
    statistics = {}
    for name in names:
        mean = sums[name] / count
        # Over pictures and tokens together: one picture alone still has a scale.
        grand = mean.mean(0)
        spread = squares[name] / count - grand.square()
        statistics[name] = (mean.float(), spread.mean().clamp(min=1e-8).float())
    return statistics


@dataclass(frozen=True)
class Shift:
    """What the LLM read of some pictures, to tell how far it has moved since.

    Attributes:
        seen: By side ("forget", "retain"): inputs, the layers' statistics, and their outputs.
    """

    seen: dict[str, tuple[list[dict[str, Tensor]], Statistics, list[Features]]]

    @classmethod
    def before(cls, vlm: VLM, data: Data, most: int = 64) -> Shift:
        """Takes down at most `most` pictures a side, fewer if they are large, before training."""
        seen = {}
        for side in ("forget", "retain"):
            samples = one_a_picture(getattr(data, side))
            pictures = [s.picture for s in samples if s.picture is not None][:most]
            if pictures:
                batches, old, held = [], [], 0
                for batch in picture_batches(vlm, pictures):
                    batches.append(batch)
                    old.append(_read(vlm, batch))
                    held += sum(flat(tokens).nbytes for tokens in old[-1].values())
                    if held > HELD:
                        break
                statistics = _statistics(old, choose_layers(vlm, ["projector"]))
                seen[side] = (batches, statistics, old)
        return cls(seen)

    def after(self, vlm: VLM) -> dict[str, float]:
        """Mean squared distance by side, in layer variances: high where forgotten, low if kept."""
        between, found = distance_between("mse"), {}
        for side, (batches, statistics, old) in self.seen.items():
            moved = [
                between(tokens, before[name], statistics[name][1])
                for batch, before in zip(batches, old, strict=True)
                for name, tokens in _read(vlm, batch).items()
            ]
            found[f"{side}_shift"] = float(torch.cat(moved).mean())
        return found


@torch.no_grad()
def _read(vlm: VLM, batch: dict[str, Tensor]) -> Features:
    return represent(vlm, batch, choose_layers(vlm, ["projector"]))
