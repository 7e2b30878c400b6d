"""LLaVA 1.5: a CLIP-type vision tower, a two-layer projector, a Llama-type language model."""

from __future__ import annotations

from typing import Any, ClassVar

from unsee.families import FAMILIES, Family
from unsee.types import Parts

DINOV2_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


@FAMILIES.register("llava", source="Liu et al., arXiv 2310.03744")
class Llava(Family):
    """LLaVA 1.5 (`LlavaForConditionalGeneration`): CLIP or SigLIP tower, MLP projector, LLM."""

    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    parts: ClassVar[Parts] = Parts(
        encoder=("model.vision_tower.",),
        projector=("model.multi_modal_projector.",),
        language=("model.language_model.", "lm_head."),
    )
    aligned: ClassVar[bool] = True
    lora_targets: ClassVar[str] = (
        r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    )

    def visual_layers(self, model: Any) -> dict[str, str]:
        """The encoder layers up to the last one that the projector reads, then the projector."""
        prefix = self._encoder_prefix(model)
        layers = {f"encoder.{i}": f"{prefix}.{i}" for i in range(self._layers_read(model.config))}
        return layers | {"projector": "model.multi_modal_projector"}

    def unread_layers(self, model: Any) -> list[str]:
        """The layers after the last one that the projector reads (LLaVA 1.5: CLIP's last layer)."""
        prefix, count = self._encoder_prefix(model), model.config.vision_config.num_hidden_layers
        return [f"{prefix}.{i}" for i in range(self._layers_read(model.config), count)]

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """fc1 and fc2 of every encoder layer that runs."""
        return {
            short: (f"{module}.mlp.fc1", f"{module}.mlp.fc2")
            for short, module in self.visual_layers(model).items()
            if short != "projector"
        }

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """Names without the leading "model."; older files nest the tower in "vision_model"."""
        short = name.removeprefix("model.")
        if short.startswith("language_model."):
            nested = short.replace("language_model.", "language_model.model.", 1)
            return (nested, short, name)
        if short.startswith("lm_head."):
            return (f"language_model.{short}", short)
        old = short.replace("vision_tower.", "vision_tower.vision_model.", 1)
        # Files keep the names of the first DINOv2 release; transformers has renamed its modules.
        dino = short
        for current, published in DINOV2_NAMES.items():
            dino = dino.replace(current, published)
        return (short, old, name, dino)

    def _layers_read(self, config: Any) -> int:
        """The number of encoder layers up to the last one that the projector reads."""
        count = int(config.vision_config.num_hidden_layers)
        selected = getattr(config, "vision_feature_layer", -1)
        # hidden_states[0] is the embedding, so layer i's output is hidden_states[i + 1].
        return max(
            index if index >= 0 else count + 1 + index
            for index in (selected if isinstance(selected, list | tuple) else [selected])
        )

    def _encoder_prefix(self, model: Any) -> str:
        names = {name for name, _ in model.named_modules()}
        for prefix in (
            "model.vision_tower.encoder.layers",
            "model.vision_tower.vision_model.encoder.layers",
        ):
            if prefix in names:
                return prefix
        # In towers of other classes, the blocks are the longest ModuleList.
        tower = model.get_submodule("model.vision_tower")
        lists = [
            (len(module), f"model.vision_tower.{name}")
            for name, module in tower.named_modules()
            if type(module).__name__ == "ModuleList"
        ]
        return max(lists)[1]
