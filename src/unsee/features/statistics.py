"""Statistics of visual features over pictures, their distance, and their shift."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unsee.data.selection import one_sample_per_picture
from unsee.features.capture import Features, Tokens, flat, picture_features
from unsee.features.layers import choose_layers
from unsee.features.pictures import picture_batches
from unsee.losses import scaled_mse
from unsee.models.vlm import VLM
from unsee.types import Data

# Mean [tokens, dim] and mean variance (scalar) by layer.
Statistics = dict[str, tuple[Tensor, Tensor]]


HELD = 1 << 24  # bytes of features after which `RepresentationShift` stops adding pictures


def scaled_distance(h: Tokens, t: Tokens, variance: Tensor) -> Tensor:
    """Returns the squared distance of each picture's features over the variance [pictures].

    Where pictures are not aligned, t may have one token: it is then compared with each of h.

    Args:
        h: Features of pictures.
        t: Features that they are compared with.
        variance: Variance of the layer.
    """
    if isinstance(h, Tensor) and isinstance(t, Tensor):
        return scaled_mse(h, t, variance)
    pairs = zip(h, t, strict=True)
    return torch.cat([scaled_mse(a[None], b[None], variance) for a, b in pairs])


@torch.no_grad()
def layer_statistics(
    vlm: VLM, batches: Iterable[dict[str, Tensor]], names: Sequence[str]
) -> Statistics:
    """Returns the mean [tokens, dim] and the mean variance (scalar) of each layer over pictures.

    Where the family does not align pictures, the mean is also over tokens, [1, dim], and each
    picture has equal weight, however many tokens it has.

    Args:
        vlm: The model.
        batches: Visual inputs of the pictures.
        names: Names of the layers.
    """
    return _statistics((picture_features(vlm, inputs, names) for inputs in batches), names)


def _statistics(batches: Iterable[Features], names: Sequence[str]) -> Statistics:
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    count = 0
    for features in batches:
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
class RepresentationShift:
    """How far training moves the features that the LLM reads, on some pictures.

    Attributes:
        seen: By side ("forget", "retain"): visual inputs, layer statistics, and features before.
    """

    seen: dict[str, tuple[list[dict[str, Tensor]], Statistics, list[Features]]]

    @classmethod
    def before(cls, vlm: VLM, data: Data, most: int = 64) -> RepresentationShift:
        """Stores the features before training.

        Args:
            vlm: The model, not yet trained.
            data: The forget and retain sets.
            most: Largest number of pictures of each side; fewer are used if they are large.
        """
        seen = {}
        for side in ("forget", "retain"):
            samples = one_sample_per_picture(getattr(data, side))
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
        """Returns "forget_shift" and "retain_shift": mean squared distances in variances."""
        shifts = {}
        for side, (batches, statistics, old) in self.seen.items():
            moved = [
                scaled_distance(tokens, before[name], statistics[name][1])
                for batch, before in zip(batches, old, strict=True)
                for name, tokens in _read(vlm, batch).items()
            ]
            shifts[f"{side}_shift"] = float(torch.cat(moved).mean())
        return shifts


@torch.no_grad()
def _read(vlm: VLM, batch: dict[str, Tensor]) -> Features:
    return picture_features(vlm, batch, choose_layers(vlm, ["projector"]))
