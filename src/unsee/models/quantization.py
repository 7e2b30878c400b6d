"""Quantization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch

from unsee.errors import ConfigError, ModelError

LoadIn = Literal["8bit", "4bit"]


# What holds weights in that many bits. Both run on CPUs and GPUs; bitsandbytes' own 8 bits cannot
# multiply Mllama's tiles on a CPU, and torchao's 4 bits leave layers of some widths as they are.
LIBRARIES: Mapping[str, str] = {"8bit": "torchao", "4bit": "bitsandbytes"}


@dataclass(frozen=True)
class Quantization:
    """How a model's linear layers are held in fewer bits than they were trained in.

    8bit is an integer and a scale a row, by torchao; 4bit is NF4 in blocks, by bitsandbytes.

    Source: Dettmers et al., arXiv 2305.14314, section 3 (NF4).

    Attributes:
        load_in: "8bit" or "4bit"; None for a checkpoint that is stored so.
        library: What holds them.
        version: Its version, if it is installed.
    """

    load_in: str | None
    library: str
    version: str | None

    def config(self, dtype: torch.dtype) -> Any:
        """What transformers is told; `dtype` is what the layers compute in."""
        import transformers

        made: Any = transformers
        if self.library == "torchao":
            from torchao.quantization import Int8WeightOnlyConfig

            return made.TorchAoConfig(Int8WeightOnlyConfig())
        return made.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )


def quantization_for(load_in: str) -> Quantization:
    """What can load weights in that many bits here; nothing is loaded.

    Raises:
        ConfigError: If there is no such number of bits, or no library for it.
    """
    if load_in not in LIBRARIES:
        raise ConfigError(f"load_in '{load_in}' is unknown. Allowed: {', '.join(LIBRARIES)}.")
    library = LIBRARIES[load_in]
    found = _installed(library)
    if found is None:
        raise ConfigError(
            f"load_in '{load_in}' needs {library}, which is not installed. Type pip install "
            "'unsee[quantized]', or load the weights as they are."
        )
    return Quantization(load_in, library, found)


def stored_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """What a checkpoint's config.json says of weights that are stored quantized."""
    stored = config.get("quantization_config")
    if not stored:
        return None
    library = str(stored.get("quant_method", "an unnamed library"))
    return Quantization(None, library, _installed(library))


def refuse_unquantized(model: Any, wanted: Quantization) -> None:
    """Refuses a model all of whose weights were left as they are.

    Raises:
        ModelError: If nothing is quantized.
    """
    if all(type(parameter) is torch.nn.Parameter for parameter in model.parameters()):
        raise ModelError(
            f"{wanted.library} {wanted.version} has quantized no layer of this model. Load the "
            "weights as they are."
        )


def avoid_packing(model: Any) -> None:
    """Keeps layers from bitsandbytes' packed CPU kernels whose shape these cannot hold.

    They hold outputs by 32 and whole blocks of inputs; some towers have others.
    """
    for layer in model.modules():
        state = getattr(getattr(layer, "weight", None), "quant_state", None)
        if state is not None and (state.shape[0] % 32 or state.shape[1] % state.blocksize):
            layer.support_avx512bf16_for_cpu = False


def _installed(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
