"""LoRA adapters: low-rank matrices beside frozen linear layers, trained, then merged.

The methods, the relearning attack and `unsee finetune` use them. The family says which layers of
the language part are adapted (`lora_targets`); in the visual part it is every linear layer that
would have been trained.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import nn

from unsee.errors import ConfigError
from unsee.files import atomic_folder

if TYPE_CHECKING:
    from unsee.models.vlm import VLM


ADAPTER_NAME = "default"
HOLDER = "held"


@dataclass(frozen=True)
class Lora:
    """The shape of low-rank adapters: the weight's change is alpha / rank times B A.

    Source: Hu et al., arXiv 2106.09685, section 4.1.

    Attributes:
        rank: Rows of A and columns of B.
        alpha: Numerator of the scale.
        dropout: Dropout probability of A's inputs while training.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class LoraAdapters:
    """The LoRA adapters of a model, until they are merged into its weights.

    Attributes:
        lora: Rank, scale and dropout.
        targets: The names of the adapted modules, in the model's order.
        parameters: What is trained, by name; still readable after `merge`.
    """

    def __init__(self, vlm: VLM, parameters: Mapping[str, nn.Parameter], lora: Lora) -> None:
        """Adds adapters to the linear layers that hold some of `parameters`.

        A is drawn from torch's generator, which the caller seeds; B is 0, so the model's outputs
        do not change at first.

        Args:
            vlm: The model; its linear layers are replaced in place.
            parameters: The weights that the adapters stand for, by name.
            lora: Rank, scale and dropout.

        Raises:
            ConfigError: If a part of `parameters` has no layer that can be adapted.
        """
        from peft import LoraModel

        self.lora = lora
        self.targets = _targets(vlm, parameters)
        # peft takes some names of a model that transformers describes for those of older versions,
        # and would adapt experts in their place. It knows nothing of a holder.
        names = [f"{HOLDER}.{name}" for name in self.targets]
        self._tuner: Any = LoraModel(
            nn.ModuleDict({HOLDER: vlm.model}), self._config(names), ADAPTER_NAME
        )
        self.parameters = {n: p for n, p in vlm.model.named_parameters() if "lora_" in n}
        for parameter in self.parameters.values():
            # Half precision would round the small updates of adapters away.
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()
        for name, module in vlm.model.named_modules():
            if ".lora_dropout" in name:
                module.train()

    def merge(self) -> None:
        """Adds the product B A to the weights and removes the adapters; names are as before."""
        with torch.no_grad():
            self._tuner.merge_and_unload()

    def save(self, folder: Path, base: str | None = None) -> None:
        """Writes a folder that `peft.PeftModel.from_pretrained(base, folder)` loads.

        Args:
            folder: Where to write, atomically.
            base: The base checkpoint's hub id, if it has one.

        Raises:
            ConfigError: If peft would put the adapters on other layers.
            ModelError: If the folder is not empty or cannot be written.
        """
        from safetensors.torch import save_file

        self._refuse_renamed()

        tensors = {
            "base_model.model." + name.replace(f".{ADAPTER_NAME}.", "."): p.detach()
            .cpu()
            .contiguous()
            for name, p in self.parameters.items()
        }
        config = self._config(list(self.targets))
        config.inference_mode = True
        config.base_model_name_or_path = base
        with atomic_folder(folder) as partial:
            save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})
            config.save_pretrained(str(partial))
            path = partial / "adapter_config.json"
            content = json.loads(path.read_text("utf-8"))
            # peft keeps them as a set, whose order differs from run to run.
            content["target_modules"] = sorted(content["target_modules"])
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")

    def _refuse_renamed(self) -> None:
        """Refuses names that peft takes for those of older versions of transformers."""
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

        read = self._config(list(self.targets))
        model = self._tuner.model[HOLDER]
        convert_peft_config_for_transformers(read, model=model, conversions=None)
        lost = sorted({*self.targets} - {*read.target_modules})
        if lost:
            raise ConfigError(
                f"save=adapter: peft takes layer {lost[0]} of a model of type "
                f"'{model.config.model_type}' for one of its experts, so an adapter that it loads "
                "would change other layers than were trained. Save the model: --save model."
            )

    def _config(self, targets: list[str]) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self.lora.rank,
            lora_alpha=self.lora.alpha,  # type: ignore[arg-type]
            lora_dropout=self.lora.dropout,
            target_modules=targets,
        )


def _targets(vlm: VLM, parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    """The linear modules to adapt in place of training `parameters`, in the model's order."""
    language = vlm.family.parts.prefixes("language")
    pattern = vlm.family.lora_targets
    owners = {name.rpartition(".")[0] for name in parameters}
    linear = [
        # Not subclasses: torch's own attention reads its projection's weight without `forward`.
        name
        for name, module in vlm.model.named_modules()
        if type(module) is nn.Linear
    ]
    adapted = [name for name in linear if name in owners]
    # The prefix of a part that is one layer, such as "lm_head.", ends in a dot.
    spoken = {name for name in adapted if f"{name}.".startswith(language)}
    in_language = [name for name in adapted if name in spoken and re.fullmatch(pattern, name)]
    in_visual = [name for name in adapted if name not in spoken]
    if not in_language and any(n.startswith(language) for n in parameters):
        raise ConfigError(
            f"the LoRA pattern '{pattern}' of family '{vlm.family.name}' matches no layer of this "
            "model's language part. Train the weights themselves: --set lora=0."
        )
    if not in_visual and any(not n.startswith(language) for n in parameters):
        raise ConfigError(
            "LoRA matches no layer of the visual part: what is to be trained there has no linear "
            "layer. Train the weights themselves: --set lora=0."
        )
    chosen = {*in_language, *in_visual}
    return tuple(name for name in adapted if name in chosen)
