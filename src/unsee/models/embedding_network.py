"""Networks that a function builds, as checkpoints and models that transformers' Auto classes read.

The checkpoint of a function is written once, into the user's cache: its weights as the network's
own `state_dict` names them, and a config.json with the function's name. What reads checkpoints
reads it as any other.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from unsee.errors import ModelError, UnseeError, first_line, shorten
from unsee.families.encoders.functions import KIND, RETURN, allow, built
from unsee.files import atomic_folder, combine_digests

WEIGHTS = "model.safetensors"


class EmbeddingNetworkConfig(PreTrainedConfig):
    """The config.json of a network that a function builds.

    Attributes:
        function: MODULE:FUNCTION.
    """

    model_type = KIND
    function: str = ""


class EmbeddingNetwork(PreTrainedModel):
    """A network of the user's own, with the interface of a model of transformers.

    Attributes:
        network: The network that the function has returned, or a copy of it.
        embedding: Passes the network's output, so that it can be captured.
    """

    config_class = EmbeddingNetworkConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EmbeddingNetworkConfig) -> None:
        """Copies the network of the configuration's function, which is called once a process."""
        super().__init__(config)
        self.network = _copied(config.function)
        self.embedding = nn.Identity()
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: Tensor, **_options: Any) -> Tensor:
        """Embeddings of pictures [pictures, dim].

        Args:
            pixel_values: What the function's preprocessing makes of them.

        Raises:
            ModelError: If the network fails, or returns something else.
        """
        try:
            output = self.network(pixel_values)
        except (torch.OutOfMemoryError, UnseeError):
            raise
        except Exception as error:
            reason = shorten(first_line(error), 300)
            raise ModelError(
                f"model '{self.config.function}': {type(error).__name__} in its network, given "
                f"pictures of shape {list(pixel_values.shape)} ({reason}). {RETURN}"
            ) from error
        if not isinstance(output, Tensor) or output.dim() != 2:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelError(
                f"model '{self.config.function}': its network makes {shape} of "
                f"{len(pixel_values)} pictures. {RETURN}"
            )
        embedded: Tensor = self.embedding(output)
        return embedded

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves all weights as the function has made them."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, *_: Any, **options: Any
    ) -> Any:
        """The network with the weights of a checkpoint, as transformers' own method loads it.

        Args:
            folder: The checkpoint.
            **options: `config`, `dtype`, `device_map` (only "meta" or a device of the whole) and
                `output_loading_info`; others have no meaning here.
        """
        config = options.get("config") or EmbeddingNetworkConfig.from_pretrained(folder)
        model: Any = cls(config)
        stored = load_file(Path(folder) / WEIGHTS)
        own = model.network.state_dict()
        shapes = {n: t.shape for n, t in own.items() if isinstance(t, Tensor)}
        wrong = [n for n in stored if n in shapes and stored[n].shape != shapes[n]]
        fitting = {n: t for n, t in stored.items() if n not in wrong}
        result = model.network.load_state_dict(fitting, strict=False)
        dtype, device = options.get("dtype"), options.get("device_map")
        if isinstance(dtype, torch.dtype):
            model = model.to(dtype)
        if device is not None:
            model = model.to(device[""] if isinstance(device, dict) else device)
        info = {
            "missing_keys": [n for n in result.missing_keys if n in shapes and n not in wrong],
            "mismatched_keys": wrong,
            "unexpected_keys": list(result.unexpected_keys),
        }
        return (model.eval(), info) if options.get("output_loading_info") else model.eval()


AutoConfig.register(KIND, EmbeddingNetworkConfig)
AutoModel.register(EmbeddingNetworkConfig, EmbeddingNetwork)


def function_checkpoint(name: str, digest: Any) -> Path:
    """The folder with the checkpoint of a function that the user has typed.

    It lies in the user's cache and is written if the network's weights are new there.

    Args:
        name: MODULE:FUNCTION.
        digest: Computes the SHA-256 of a tensor.

    Raises:
        ModelError: If the function cannot be imported or called, or returns something else.
    """
    allow(name)
    tensors = _distinct(built(name).network)
    digests = {n: digest(tensor) for n, tensor in tensors.items()} | {"": name}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "unsee" / "functions" / combine_digests(digests)[:32]
    if not (folder / WEIGHTS).is_file():
        dtype = next(t.dtype for t in tensors.values() if t.is_floating_point())
        config = {
            "architectures": [EmbeddingNetwork.__name__],
            "dtype": str(dtype).removeprefix("torch."),
            "function": name,
            "model_type": KIND,
        }
        with atomic_folder(folder) as partial:
            save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
            (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return folder


def _copied(name: str) -> nn.Module:
    """A copy of the network of a function.

    Raises:
        ModelError: If it cannot be copied.
    """
    try:
        return copy.deepcopy(built(name).network)
    except (RuntimeError, TypeError) as error:
        reason = shorten(first_line(error), 300)
        raise ModelError(
            f"model '{name}': its network cannot be copied by copy.deepcopy ({reason}). Return it "
            "without tensors or handles that its modules keep beside their parameters, and with "
            "torch.nn.utils.parametrizations in place of torch.nn.utils.weight_norm."
        ) from error


def _distinct(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors, each with memory of its own; extra state of modules is no weight."""
    state = network.state_dict().items()
    return {n: t.detach().cpu().clone().contiguous() for n, t in state if isinstance(t, Tensor)}
