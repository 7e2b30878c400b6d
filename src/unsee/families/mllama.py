"""Mllama (Llama 3.2 Vision): cross attention to pictures of up to four tiles."""

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
    nests_images: ClassVar[bool] = True
    reuses_prefix: ClassVar[bool] = False
    visual_names: ClassVar[tuple[str, ...]] = (
        "pixel_values",
        "aspect_ratio_ids",
        "aspect_ratio_mask",
    )

    def visual_layers(self, model: Any) -> dict[str, str]:
        """The local encoder layers, then the global ones, and the projector."""
        modules = [
            f"model.vision_model.{stack}.layers.{i}"
            for stack in ("transformer", "global_transformer")
            for i in range(len(model.get_submodule(f"model.vision_model.{stack}.layers")))
        ]
        layers = {f"encoder.{i}": module for i, module in enumerate(modules)}
        return layers | {"projector": "model.multi_modal_projector"}

    def unread_layers(self, model: Any) -> list[str]:
        """No layers: all outputs are used."""
        return []

    def count_features(self, model: Any, inputs: dict[str, Tensor]) -> int | None:
        """None: the LLM attends to pictures, which take the place of no token."""
        return None

    def visual_forward(self, model: Any, inputs: dict[str, Tensor]) -> None:
        """Runs encoder and projector; the model has no `get_image_features`."""
        hidden = model.model.vision_model(**inputs).last_hidden_state
        model.model.multi_modal_projector(hidden)

    def logits(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """See `Family.logits`; rows without a picture run in a batch of their own.

        In a common batch they would attend to padding pictures.
        """
        return self._run_by_modality(inputs, partial(super().logits, model))

    def hidden(self, model: Any, inputs: dict[str, Tensor], module: str) -> Tensor:
        """See `Family.hidden`; rows without a picture run in a batch of their own."""
        return self._run_by_modality(inputs, partial(super().hidden, model, module=module))

    def _run_by_modality(self, inputs: dict[str, Tensor], run: Callable[..., Tensor]) -> Tensor:
        """Outputs of `run` for rows with and without a picture, in the order of the rows."""
        shown = self._has_picture(inputs)
        if shown is None or bool(shown.all()):
            return run(inputs)
        with_picture = run({n: t[shown] for n, t in inputs.items()})
        text_inputs = {n: inputs[n][~shown] for n in ("input_ids", "attention_mask")}
        outputs = with_picture.new_empty(len(shown), *with_picture.shape[1:])
        outputs[shown], outputs[~shown] = with_picture, run(text_inputs)
        return outputs

    def visual_inputs(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The visual inputs of the rows that have a picture; others do not enter the encoder."""
        shown = self._has_picture(inputs)
        visual = super().visual_inputs(model, inputs)
        return visual if shown is None else {n: t[shown] for n, t in visual.items()}

    def _has_picture(self, inputs: dict[str, Tensor]) -> Tensor | None:
        ids = inputs.get("aspect_ratio_ids")
        return None if ids is None else (ids > 0).any(-1)

    def split(self, output: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """One tensor per picture, without padding pictures, padding tiles and padding tokens."""
        mask = inputs["aspect_ratio_mask"].flatten(0, 1).bool()
        shown = inputs["aspect_ratio_ids"].flatten() > 0
        tiles = output.reshape(*mask.shape, -1, output.shape[-1])
        # A tile has side * side + 1 tokens; the encoder pads it to a multiple of 8.
        tokens = isqrt(tiles.shape[2] - 1) ** 2 + 1
        return [
            picture[is_tile, :tokens].flatten(0, 1)
            for picture, is_tile, is_picture in zip(tiles, mask, shown, strict=True)
            if is_picture
        ]
