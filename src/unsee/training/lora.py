"""LoRA adapters: small matrices beside frozen linear layers, trained instead, then folded in.

The methods, the relearning attack and `unsee finetune` all come here. Which layers of the language
part are adapted is said by the family (`lora_targets`); in the visual part it is every linear layer
that would have been trained.
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


NAME = "default"


@dataclass(frozen=True)
class Lora:
    """The shape of low-rank adapters: the weight's change is alpha / rank times B A.

    Source: Hu et al., arXiv 2106.09685, section 4.1.

    Attributes:
        rank: Rows of A and columns of B.
        alpha: Numerator of the scale.
        dropout: Share of A's inputs that are dropped while training.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class LoraAdapters:
    """Adapters that sit in a model until they are folded into its weights.

    Attributes:
        lora: Their shape.
        targets: The names of the adapted modules, in order.
        parameters: What is trained, by name; still readable after `fold`.
    """

    def __init__(self, vlm: VLM, parameters: Mapping[str, nn.Parameter], lora: Lora) -> None:
        """Puts adapters into the linear layers that hold some of `parameters`.

        A is drawn from torch's generator and B is 0, so that at first nothing changes; the caller
        seeds.

        Raises:
            ConfigError: If a part of `parameters` has no layer that can be adapted.
        """
        from peft import LoraModel

        self.lora = lora
        self.targets = _targets(vlm, parameters)
        tuner: Any = LoraModel(vlm.model, self._config(list(self.targets)), NAME)
        self._tuner, self._model = tuner, vlm.model
        self.parameters = {n: p for n, p in vlm.model.named_parameters() if "lora_" in n}
        for parameter in self.parameters.values():
            # Half precision loses the small steps that adapters are made of.
            if parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = parameter.data.float()
        for name, module in vlm.model.named_modules():
            if ".lora_dropout" in name:
                module.train()

    def merge(self) -> None:
        """Adds the adapters' product to the weights and takes them out; names are as before."""
        with torch.no_grad():
            self._tuner.merge_and_unload()
        # peft leaves its configuration behind, which would end up in config.json.
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config

    def save(self, folder: Path, base: str | None = None) -> None:
        """Writes a folder that `peft.PeftModel.from_pretrained(base, folder)` loads.

        Args:
            folder: Where to, whole or not at all.
            base: The base checkpoint's hub id, if it has one.

        Raises:
            ModelError: If the folder is in use or cannot be written.
        """
        from safetensors.torch import save_file

        tensors = {
            "base_model.model." + name.replace(f".{NAME}.", "."): p.detach().cpu().contiguous()
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
        # Subclasses, such as the projection inside torch's own attention, are read past `forward`.
        name
        for name, module in vlm.model.named_modules()
        if type(module) is nn.Linear
    ]
    adapted = [name for name in linear if name in owners]
    spoken = [n for n in adapted if n.startswith(language) and re.fullmatch(pattern, n)]
    visual = [n for n in adapted if not n.startswith(language)]
    if not spoken and any(n.startswith(language) for n in parameters):
        raise ConfigError(
            f"the LoRA pattern '{pattern}' of family '{vlm.family.name}' matches no layer of this "
            "model's language part. Train the weights themselves: --set lora=0."
        )
    if not visual and any(not n.startswith(language) for n in parameters):
        raise ConfigError(
            "LoRA matches no layer of the visual part: what is to be trained there has no linear "
            "layer. Train the weights themselves: --set lora=0."
        )
    chosen = {*spoken, *visual}
    return tuple(name for name in adapted if name in chosen)
