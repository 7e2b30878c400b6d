"""The frozen prefix: encoder layers below the first trained one.

Teacher and student compute the same there, so these layers run once, for the teacher, and the
student's pass replays their outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from torch import Tensor

from unsee.features.capture import Features, capture, picture_features, split_by_picture

if TYPE_CHECKING:
    from unsee.models.vlm import VLM
    from unsee.types import Batch


def frozen_prefix(vlm: VLM, trained: Iterable[str]) -> list[str]:
    """Returns the names of the encoder layers below the first trained one, in order.

    Args:
        vlm: The model.
        trained: The names of the trained parameters.
    """
    modules = {n: f"{module}." for n, module in vlm.family.visual_layers(vlm.model).items()}
    prefixes = vlm.family.parts.prefixes("encoder")
    in_encoder = [name for name in trained if name.startswith(prefixes)]
    if not all(name.startswith(tuple(modules.values())) for name in in_encoder):
        # Weights outside the layers may come before all of them, as embeddings do.
        return []
    encoder = [name for name in modules if name.startswith("encoder.")]
    return list(
        takewhile(lambda name: not any(n.startswith(modules[name]) for n in in_encoder), encoder)
    )


@contextmanager
def replayed(vlm: VLM, outputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Makes layers return known outputs instead of running, for the length of the block.

    Args:
        vlm: The model.
        outputs: The raw output of each such layer, by name.
    """
    modules = vlm.family.visual_layers(vlm.model)
    layers = {name: vlm.model.get_submodule(modules[name]) for name in outputs}
    before = {name: layer.__dict__.get("forward") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            # The module itself stays, and with it the hooks that collect its output.
            layer.forward = partial(_return, outputs[name])
        yield
    finally:
        for name, layer in layers.items():
            del layer.forward
            if before[name] is not None:
                layer.forward = before[name]


def _return(output: Tensor, *_inputs: Any, **_options: Any) -> Tensor:
    return output


def student_features(
    student: VLM,
    batch: Batch,
    layers: Sequence[str],
    replay: Mapping[str, Tensor],
    with_logits: bool,
) -> tuple[Features, Tensor | None]:
    """Returns the student's features of a batch by layer and, on request, its logits.

    Args:
        student: The model being unlearned.
        batch: Samples with pictures.
        layers: Names of the visual layers.
        replay: The raw outputs of the frozen prefix, which then does not run. Only used without
            logits.
        with_logits: Whether the whole model runs; else the visual part does.
    """
    inputs = student.visual_inputs(batch)
    if not with_logits:
        with replayed(student, replay):
            return picture_features(student, inputs, layers), None
    with capture(student, layers) as outputs:
        logits = student.logits(batch)
    return split_by_picture(student, outputs, inputs), logits
