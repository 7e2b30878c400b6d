"""Prepares a model for training: precision, activation checkpointing, compilation, sharding."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, float16, nn
from torch import distributed as dist

from unsee.errors import ConfigError, TrainingError, first_line
from unsee.training.distributed import DistributedContext, Objective, full_tensor

if TYPE_CHECKING:
    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings


@contextmanager
def prepared_model(
    context: DistributedContext,
    vlm: VLM,
    parameters: Mapping[str, nn.Parameter],
    settings: TrainingSettings,
) -> Iterator[tuple[DistributedContext, Mapping[str, nn.Parameter]]]:
    """Prepares a model for training as the settings say, for the length of the block.

    Args:
        context: How steps are computed.
        vlm: The model.
        parameters: What is trained, by name.
        settings: The training settings.

    Yields:
        The context, and what to train in place of `parameters`, which hold the result afterwards.

    Raises:
        ConfigError: If the model does not support a setting.
        TrainingError: If another process has ended early.
    """
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if settings.attention != "auto":
        vlm.model.set_attn_implementation(settings.attention)
    with ExitStack() as stack:
        if context.precision != "no":
            # Half precision loses the small steps that trained weights take.
            stack.enter_context(_in_float32(parameters.values()))
        if settings.checkpointing:
            stack.enter_context(_checkpointing(vlm))
        if context.strategy == "fsdp":
            context, parameters = stack.enter_context(_sharded(context, vlm, parameters))
        if settings.compile:
            stack.enter_context(_compiled(vlm))
        try:
            yield context, parameters
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
            if context.world_size == 1 or not lost:
                raise
            raise TrainingError(
                f"another process has ended ({first_line(error)}). See its error message; the same "
                "command continues from the last state."
            ) from error


@contextmanager
def float32_model(vlm: VLM, settings: TrainingSettings) -> Iterator[None]:
    """Holds a model in float32 for the length of the block, with `precision=fp32`.

    So is a float16 model on a CPU at any precision: in float16, AdamW's epsilon is 0 and small
    gradients' squares are too. Weights on the meta device, which were never loaded, stay as they
    are.
    """
    on_cpu = vlm.device.type == "cpu"
    masters = on_cpu and any(p.dtype == float16 for p in vlm.parameters("all").values())
    tensors = (*vlm.model.parameters(), *vlm.model.buffers())
    narrow = [t for t in tensors if t.is_floating_point() and t.itemsize < 4 and not t.is_meta]
    with _in_float32(narrow if settings.precision == "fp32" or masters else []):
        yield


@contextmanager
def _in_float32(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Holds tensors in float32 for the length of the block, then in their own dtype again."""
    dtypes = [(tensor, tensor.dtype) for tensor in tensors]
    for tensor, _ in dtypes:
        tensor.data = tensor.data.float()
    yield
    for tensor, dtype in dtypes:
        tensor.data = tensor.data.to(dtype)


@contextmanager
def _checkpointing(vlm: VLM) -> Iterator[None]:
    """Activation checkpointing: recomputes activations in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not vlm.model.supports_gradient_checkpointing:
        kind = type(vlm.model).__name__
        raise ConfigError(f"{kind} cannot do gradient checkpointing. Type checkpointing=false.")
    vlm.model.activation_checkpointing_enable({"use_reentrant": False})
    blocks = [m for m in vlm.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for block in blocks:
        # Only the block's own flag, which checkpointing requires: its dropout stays off.
        block.training = True
    yield
    for block in blocks:
        block.training = False
    vlm.model.activation_checkpointing_disable()


@contextmanager
def _compiled(vlm: VLM) -> Iterator[None]:
    """Compiles attention and MLP of every block; not the block, whose outputs hooks capture."""
    layers = {**vlm.family.language_layers(vlm.model), **vlm.family.visual_layers(vlm.model)}
    blocks = [vlm.model.get_submodule(name) for name in layers.values()]
    inner = [child for block in blocks for child in block.children()]
    for module in inner:
        module.compile()
    yield
    for module in inner:
        # Set by `compile`; copies and saved models must not carry it.
        module._compiled_call_impl = None


@contextmanager
def _sharded(
    context: DistributedContext, vlm: VLM, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[DistributedContext, Mapping[str, nn.Parameter]]]:
    """Shards the trained weights among the processes (FSDP2).

    Every block of the LLM is a unit of its own; the rest is one unit, because a batch without
    pictures does not run the visual part. Frozen weights are not sharded, as a teacher may share
    them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = vlm.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    copied = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    trained = {id(parameter) for parameter in parameters.values()}
    if not trained <= set(names):
        raise ConfigError(
            "the weights of two models are trained here, which cannot be sharded among "
            "processes. Type parallel=ddp."
        )
    frozen = {parameter for parameter in model.parameters() if id(parameter) not in trained}
    mesh = init_device_mesh(context.device, (context.world_size,))
    root = Objective(context, copied)
    for name in vlm.family.language_layers(copied).values():
        fully_shard(copied.get_submodule(name), mesh=mesh, ignored_params=frozen)
    fully_shard(root, mesh=mesh, ignored_params=frozen)
    shards = {
        name: copied.get_parameter(names[id(parameter)]) for name, parameter in parameters.items()
    }
    for parameter in parameters.values():
        parameter.data = parameter.data.new_empty(0)
    vlm.model = copied
    try:
        yield replace(context, root=root), shards
        for name, parameter in parameters.items():
            parameter.data = full_tensor(shards[name]).detach()
    finally:
        vlm.model = model
