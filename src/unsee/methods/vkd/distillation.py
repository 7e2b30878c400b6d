"""The teacher's side of the distillation: statistics, erase targets and cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unsee.methods.vkd.erase_targets import EraseTarget
from unsee.methods.vkd.feature_cache import FeatureCache
from unsee.methods.vkd.layer_statistics import LayerStatistics

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


@dataclass(frozen=True)
class Distillation:
    """Everything the student's features are compared with, computed once from the teacher.

    Attributes:
        layers: Names of the visual layers that are compared, in the model's order.
        statistics: Mean and variance of these layers over the population.
        target: The target features of forget pictures.
        cache: The teacher, and its features of pictures that come again.
        prefix: Names of the encoder layers below the first trained one.
    """

    layers: list[str]
    statistics: LayerStatistics
    target: EraseTarget
    cache: FeatureCache
    prefix: tuple[str, ...] = ()

    @property
    def teacher(self) -> VLM:
        """The frozen start model."""
        return self.cache.vlm

    def teacher_outputs(
        self, inputs: dict[str, Tensor], layers: Sequence[str], repeated: bool
    ) -> dict[str, Tensor]:
        """Returns the teacher's raw outputs of the frozen prefix and of some layers.

        Args:
            inputs: The visual inputs of pictures.
            layers: Names of the layers, in the model's order.
            repeated: Whether the same pictures come again in this run.
        """
        names = [*self.prefix, *(name for name in layers if name not in self.prefix)]
        return self.cache.outputs(inputs, names, repeated)

    def replay(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the outputs of the frozen prefix, which the student need not compute."""
        return {name: outputs[name] for name in self.prefix if outputs}
