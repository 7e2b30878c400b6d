"""The encoder layers below the first that is trained: what they say stays, and is said once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from unsee.models.vlm import VLM


def frozen_prefix(vlm: VLM, trained: Iterable[str]) -> list[str]:
    """The encoder layers below the first trained one, in order; see `replayed`.

    Args:
        vlm: The model.
        trained: The names of the parameters that are trained.
    """
    modules = {n: f"{module}." for n, module in vlm.family.visual_layers(vlm.model).items()}
    prefixes = vlm.family.parts.prefixes("encoder")
    inner = [name for name in trained if name.startswith(prefixes)]
    if not all(name.startswith(tuple(modules.values())) for name in inner):
        # What lies in no layer may come before all of them, as embeddings do.
        return []
    encoder = [name for name in modules if name.startswith("encoder.")]
    return list(
        takewhile(lambda name: not any(n.startswith(modules[name]) for n in inner), encoder)
    )


@contextmanager
def replayed(vlm: VLM, outputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Layers that are not run during the block: each gives the raw output that is known of it."""
    modules = vlm.family.visual_layers(vlm.model)
    layers = {name: vlm.model.get_submodule(modules[name]) for name in outputs}
    before = {name: layer.__dict__.get("forward") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            # The module stays, and the hooks on it by which others collect what it says.
            layer.forward = partial(_say, outputs[name])
        yield
    finally:
        for name, layer in layers.items():
            del layer.forward
            if before[name] is not None:
                layer.forward = before[name]


def _say(output: Tensor, *_inputs: Any, **_options: Any) -> Tensor:
    return output
