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
        """Encoder layers up to the one that the projector reads, then the projector."""
        prefix = self._encoder_prefix(model)
        layers = {f"encoder.{i}": f"{prefix}.{i}" for i in range(self._read(model.config))}
        return layers | {"projector": "model.multi_modal_projector"}

    def unread_layers(self, model: Any) -> list[str]:
        """LLaVA 1.5 reads CLIP's last layer but one."""
        prefix, count = self._encoder_prefix(model), model.config.vision_config.num_hidden_layers
        return [f"{prefix}.{i}" for i in range(self._read(model.config), count)]

    def visual_mlps(self, model: Any) -> dict[str, tuple[str, str]]:
        """fc1 and fc2 of every encoder layer whose output is used."""
        return {
            short: (f"{module}.mlp.fc1", f"{module}.mlp.fc2")
            for short, module in self.visual_layers(model).items()
            if short != "projector"
        }

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """Files drop the leading "model."; older ones nest the tower in "vision_model"."""
        short = name.removeprefix("model.")
        if short.startswith("language_model."):
            nested = short.replace("language_model.", "language_model.model.", 1)
            return (nested, short, name)
        if short.startswith("lm_head."):
            return (f"language_model.{short}", short)
        old = short.replace("vision_tower.", "vision_tower.vision_model.", 1)
        # A DINOv2 tower is written as it was first published, whatever its modules are called now.
        dino = short
        for now, first in DINOV2_NAMES.items():
            dino = dino.replace(now, first)
        return (short, old, name, dino)

    def _read(self, config: Any) -> int:
        """How many of the encoder's layers the projector reads, the one that it is given last."""
        count = int(config.vision_config.num_hidden_layers)
        chosen = getattr(config, "vision_feature_layer", -1)
        # hidden_states[0] is the embedding, so layer i's output is hidden_states[i + 1].
        return max(
            index if index >= 0 else count + 1 + index
            for index in (chosen if isinstance(chosen, list | tuple) else [chosen])
        )

    def _encoder_prefix(self, model: Any) -> str:
        names = {name for name, _ in model.named_modules()}
        for prefix in (
            "model.vision_tower.encoder.layers",
            "model.vision_tower.vision_model.encoder.layers",
        ):
            if prefix in names:
                return prefix
        # Towers of other classes keep their blocks in some ModuleList: the longest is theirs.
        tower = model.get_submodule("model.vision_tower")
        lists = [
            (len(module), f"model.vision_tower.{name}")
            for name, module in tower.named_modules()
            if type(module).__name__ == "ModuleList"
        ]
        return max(lists)[1]
