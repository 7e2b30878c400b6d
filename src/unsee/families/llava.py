"""LLaVA 1.5: a CLIP-type vision tower, a two-layer projector, a Llama-type language model."""

from __future__ import annotations

from typing import Any, ClassVar

from unsee.errors import ModelError
from unsee.families import FAMILIES, Family
from unsee.families.mmproj import Mmproj, gelu_facts
from unsee.types import Parts

DINOV2_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}

# Measured by `python -m experiments.quality.llama_cpp`.
CLASS_TOKEN_LAST = (
    "llama.cpp's graph of CLIP towers puts the class token last and takes it for an image token "
    "(its issue 25814), so that its features of every LLaVA 1.5 differ from transformers', with or "
    "without patches. The file is right: use a llama.cpp in which that is mended (docs/deploy.md)."
)


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

    def mmproj(self, model: Any, processor: Any) -> Mmproj | None:
        """llama.cpp's "mlp": a CLIP tower without its last layers, and two linear layers.

        Source: llama.cpp, tools/mtmd/clip.cpp and legacy-models/convert_image_encoder_to_gguf.py.
        """
        config = model.config
        if config.model_type != "llava":
            return None
        tower, selected = config.vision_config, config.vision_feature_layer
        count, activation = int(tower.num_hidden_layers), gelu_facts(tower.hidden_act)
        indices = selected if isinstance(selected, list | tuple) else [selected]
        read = [index if index >= 0 else count + 1 + index for index in indices]
        projector = "model.multi_modal_projector.linear_"
        settings = {
            f"vision tower {tower.model_type}": tower.model_type == "clip_vision_model",
            f"activation {tower.hidden_act}": activation is not None,
            f"vision_feature_select_strategy {config.vision_feature_select_strategy}": (
                config.vision_feature_select_strategy == "default"
            ),
            f"vision_feature_layer {selected}": read == sorted(set(read)),
            f"projector_hidden_act {config.projector_hidden_act}": (
                config.projector_hidden_act == "gelu"
            ),
            "a projector without biases": bool(config.multimodal_projector_bias),
        }
        if refused := [name for name, allowed in settings.items() if not allowed]:
            raise ModelError(
                f"llama.cpp does not read a LLaVA with {refused[0]}: it takes a CLIP tower without "
                "its class token, layers in ascending order, and a GELU projector with biases."
            )
        return Mmproj(
            "mlp",
            max(read),
            {**(activation or {}), "clip.vision.feature_layer": read},
            {
                f"{projector}{number}.{kind}": f"mm.{place}.{kind}"
                for number, place in ((1, 0), (2, 2))
                for kind in ("weight", "bias")
            },
            (*self.unread_layers(model), "model.vision_tower.post_layernorm"),
            note=CLASS_TOKEN_LAST,
        )

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
