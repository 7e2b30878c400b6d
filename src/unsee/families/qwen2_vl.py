"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures at their own resolution, packed in sequence."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar

from unsee.families import FAMILIES, Family
from unsee.types import Parts

if TYPE_CHECKING:
    from torch import Tensor


@FAMILIES.register("qwen2_vl", source="Wang et al., arXiv 2409.12191")
class Qwen2VL(Family):
    """Qwen2-VL (`Qwen2VLForConditionalGeneration`): ViT with 2-D rotary positions, 2 x 2 merger."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    parts: ClassVar[Parts] = Parts(
        encoder=("model.visual.patch_embed.", "model.visual.blocks.", "model.visual.pos_embed."),
        projector=("model.visual.merger.", "model.visual.deepstack_merger_list."),
        language=("model.language_model.", "lm_head."),
    )
    visual_names: ClassVar[tuple[str, ...]] = ("pixel_values", "image_grid_thw")
    lora_targets: ClassVar[str] = (
        r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )
    mlp: ClassVar[tuple[str, str]] = ("mlp.fc1", "mlp.fc2")

    def visual_layers(self, model: Any) -> dict[str, str]:
        """The encoder blocks, the deepstack mergers if there are any, and the merger."""
        visual = model.model.visual
        layers = {f"encoder.{i}": f"model.visual.blocks.{i}" for i in range(len(visual.blocks))}
        for i in range(len(getattr(visual, "deepstack_merger_list", ()))):
            layers[f"deepstack.{i}"] = f"model.visual.deepstack_merger_list.{i}"
        return layers | {"projector": "model.visual.merger"}

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """See `Family.visual_mlps`; a neuron is an input of the outer linear, gated or not."""
        inner, outer = self.mlp
        return {
            short: (f"{module}.{inner}", f"{module}.{outer}")
            for short, module in self.visual_layers(model).items()
            if short.startswith("encoder.")
        }

    def token_shares(self, inputs: dict[str, Tensor]) -> list[int]:
        """The patches of each picture, divided by their greatest common divisor."""
        patches = [int(n) for n in inputs["image_grid_thw"].prod(-1)]
        return [n // gcd(*patches) for n in patches]

    def positions(self, model: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Position ids of time, height and width [3, batch, seq]."""
        positions: Tensor = model.model.get_rope_index(
            **{n: t for n, t in inputs.items() if n != "pixel_values"}
        )[0]
        return positions

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """Names in Qwen2-VL's files, whose parts are "visual" and "model"."""
        short = name.removeprefix("model.")
        return (short.replace("language_model.", "model.", 1), short, name)


@FAMILIES.register("qwen2_5_vl", source="Bai et al., arXiv 2502.13923")
class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`): window attention, gated MLPs.

    Blocks receive the patches in window order; no window spans two pictures.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    mlp: ClassVar[tuple[str, str]] = ("mlp.up_proj", "mlp.down_proj")


@FAMILIES.register("qwen3_vl", source="Qwen team, arXiv 2511.21631")
class Qwen3VL(Qwen2VL):
    """Qwen3-VL (`Qwen3VLForConditionalGeneration`): deepstack mergers also feed early LLM layers.

    The LLM reads the outputs of "projector" and of every "deepstack.N".
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    mlp: ClassVar[tuple[str, str]] = ("mlp.linear_fc1", "mlp.linear_fc2")

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """Files use the model's own names."""
        return (name,)
