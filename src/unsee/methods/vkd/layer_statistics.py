"""Mean and variance of the teacher's visual layers over a population of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from unsee.features.pictures import picture_batches
from unsee.features.statistics import layer_statistics
from unsee.models.vlm import VLM
from unsee.types import Picture


@dataclass(frozen=True)
class LayerStatistics:
    """Mean and variance of each visual layer's features over a population.

    Attributes:
        mean: By layer, the mean over pictures [tokens, dim]; over pictures and tokens [1, dim]
            where the family does not align pictures.
        variance: By layer, the variance over pictures and tokens, averaged over channels (scalar).
    """

    mean: Mapping[str, Tensor]
    variance: Mapping[str, Tensor]

    @classmethod
    def of_pictures(
        cls, vlm: VLM, pictures: Sequence[Picture], layers: Sequence[str]
    ) -> LayerStatistics:
        """Statistics over pictures, none of them augmented.

        Args:
            vlm: The frozen model.
            pictures: The population.
            layers: Names of visual layers.
        """
        return cls.of_inputs(vlm, picture_batches(vlm, pictures), layers)

    @classmethod
    def of_inputs(
        cls, vlm: VLM, batches: Iterable[dict[str, Tensor]], layers: Sequence[str]
    ) -> LayerStatistics:
        """Statistics over batches of visual inputs.

        Args:
            vlm: The frozen model.
            batches: Its visual inputs.
            layers: Names of visual layers.
        """
        statistics = layer_statistics(vlm, batches, layers)
        return cls(
            {name: mean for name, (mean, _) in statistics.items()},
            {name: variance for name, (_, variance) in statistics.items()},
        )
