"""Mllama (Llama 3.2 Vision): the LLM reads pictures by cross attention, in up to four tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.families import FAMILIES
from unsee.families.llava import Llava
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor


@FAMILIES.register("mllama", source="Grattafiori et al., arXiv 2407.21783")
class Mllama(Llava):
    """Mllama (`MllamaForConditionalGeneration`): local and global encoder, linear projector."""

    model_types: ClassVar[tuple[str, ...]] = ("mllama",)
    parts: ClassVar[Parts] = Parts(
        encoder=("model.vision_model.",),
        projector=("model.multi_modal_projector.",),
        language=("model.language_model.", "lm_head."),
    )
    aligned: ClassVar[bool] = False
    nested: ClassVar[bool] = True
    resumes: ClassVar[bool] = False
    visual_names: ClassVar[tuple[str, ...]] = (
        "pixel_values",
        "aspect_ratio_ids",
        "aspect_ratio_mask",
    )

    def visual_layers(self, model: Any) -> dict[str, str]:
        """The local layers, the global ones counted on from there, and the projector."""
        modules = [
            f"model.vision_model.{stack}.layers.{i}"
            for stack in ("transformer", "global_transformer")
            for i in range(len(model.get_submodule(f"model.vision_model.{stack}.layers")))
        ]
        layers = {f"encoder.{i}": module for i, module in enumerate(modules)}
        return layers | {"projector": "model.multi_modal_projector"}

    def unread_layers(self, model: Any) -> list[str]:
        """None."""
        return []

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Encoder and projector; there is no `get_image_features`."""
        seen = model.model.vision_model(**inputs).last_hidden_state
        model.model.multi_modal_projector(seen)

    def logits(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Rows without a picture run apart: in one batch they would attend to padding pictures."""
        return self._apart(inputs, partial(super().logits, model))

    def hidden(self, model: Any, inputs: dict[str, Tensor], module: str) -> Tensor:
        """Rows without a picture run apart, too."""
        return self._apart(inputs, partial(super().hidden, model, module=module))

    def _apart(self, inputs: dict[str, Tensor], run: Callable[..., Tensor]) -> Tensor:
        shown = self._shown(inputs)
        if shown is None or bool(shown.all()):
            return run(inputs)
        pictured = run({n: t[shown] for n, t in inputs.items()})
        words = {n: inputs[n][~shown] for n in ("input_ids", "attention_mask")}
        whole = pictured.new_empty(len(shown), *pictured.shape[1:])
        # Not in place on a leaf: the gradient of either half goes its own way.
        whole[shown], whole[~shown] = pictured, run(words)
        return whole

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the rows that have a picture, since no others enter the encoder."""
        shown = self._shown(inputs)
        found = super().visual_inputs(model, inputs)
        return found if shown is None else {n: t[shown] for n, t in found.items()}

    def _shown(self, inputs: dict[str, Tensor]) -> Tensor | None:
        ids = inputs.get("aspect_ratio_ids")
        return None if ids is None else (ids > 0).any(-1)

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Leaves out pictures and tiles that pad the batch, and tokens that pad a tile."""
        mask = inputs["aspect_ratio_mask"].flatten(0, 1).bool()
        shown = inputs["aspect_ratio_ids"].flatten() > 0
        tiles = output.reshape(*mask.shape, -1, output.shape[-1])
        # A tile has side * side + 1 tokens; the encoder pads it to a multiple of 8.
        tokens = isqrt(tiles.shape[2] - 1) ** 2 + 1
        return [
            picture[own, :tokens].flatten(0, 1)
            for picture, own, there in zip(tiles, mask, shown, strict=True)
            if there
        ]
