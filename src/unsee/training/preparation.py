"""A model as it is trained: in which precision, what is computed twice, compiled, or shared out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch import distributed as dist

from unsee.errors import ConfigError, TrainingError, first_line
from unsee.training.distributed import DistributedContext, Objective, full_tensor

if TYPE_CHECKING:
    from unsee.models.vlm import VLM
    from unsee.training.settings import TrainingSettings


@contextmanager
def prepared_model(
    engine: DistributedContext,
    vlm: VLM,
    parameters: Mapping[str, nn.Parameter],
    settings: TrainingSettings,
) -> Iterator[tuple[DistributedContext, Mapping[str, nn.Parameter]]]:
    """A model as the settings want it trained, for the length of the block.

    Args:
        engine: How steps are computed.
        vlm: The model.
        parameters: What is trained, by name.
        settings: Of the training.

    Yields:
        The engine, and what to train in place of `parameters`, which hold the result afterwards.

    Raises:
        ConfigError: If the model cannot be trained so.
        TrainingError: If another process has ended before its time.
    """
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    if settings.attention != "auto":
        vlm.model.set_attn_implementation(settings.attention)
    with ExitStack() as stack:
        if engine.precision != "no":
            # Half precision loses the small steps that trained weights take.
            stack.enter_context(_in_32_bits(parameters.values()))
        if settings.checkpointing:
            stack.enter_context(_checkpointing(vlm))
        if engine.parallel == "fsdp":
            engine, parameters = stack.enter_context(_shared_out(engine, vlm, parameters))
        if settings.compile:
            stack.enter_context(_compiled(vlm))
        try:
            yield engine, parameters
        except RuntimeError as error:
            lost = isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)
            if engine.processes == 1 or not lost:
                raise
            raise TrainingError(
                f"another process has ended ({first_line(error)}). See what it said; the same "
                "command goes on from the last state."
            ) from error


@contextmanager
def float32_model(vlm: VLM, settings: TrainingSettings) -> Iterator[None]:
    """With `precision=fp32`, a model in 32 bits for the length of the block; then as it was stored.

    What was never loaded (the meta device) stays as it is.
    """
    tensors = (*vlm.model.parameters(), *vlm.model.buffers())
    narrow = [t for t in tensors if t.is_floating_point() and t.itemsize < 4 and not t.is_meta]
    with _in_32_bits(narrow if settings.precision == "fp32" else []):
        yield


@contextmanager
def _in_32_bits(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Holds tensors in 32 bits, and then again as they were."""
    held = [(tensor, tensor.dtype) for tensor in tensors]
    for tensor, _ in held:
        tensor.data = tensor.data.float()
    yield
    for tensor, dtype in held:
        tensor.data = tensor.data.to(dtype)


@contextmanager
def _checkpointing(vlm: VLM) -> Iterator[None]:
    """Blocks forget what they computed, and compute it again for the gradient."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if not vlm.model.supports_gradient_checkpointing:
        kind = type(vlm.model).__name__
        raise ConfigError(f"{kind} cannot do gradient checkpointing. Type checkpointing=false.")
    vlm.model.activation_checkpointing_enable({"use_reentrant": False})
    blocks = [m for m in vlm.model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for block in blocks:
        # The block alone, which asks for it: its dropout stays off.
        block.training = True
    yield
    for block in blocks:
        block.training = False
    vlm.model.activation_checkpointing_disable()


@contextmanager
def _compiled(vlm: VLM) -> Iterator[None]:
    """Attention and MLP of every block compiled; the blocks are not, whose outputs are captured."""
    layers = {**vlm.family.language_layers(vlm.model), **vlm.family.visual_layers(vlm.model)}
    blocks = [vlm.model.get_submodule(name) for name in layers.values()]
    inner = [child for block in blocks for child in block.children()]
    for module in inner:
        module.compile()
    yield
    for module in inner:
        # What `compile` has set, which copies and saved models must not carry.
        module._compiled_call_impl = None


@contextmanager
def _shared_out(
    engine: DistributedContext, vlm: VLM, parameters: Mapping[str, nn.Parameter]
) -> Iterator[tuple[DistributedContext, Mapping[str, nn.Parameter]]]:
    """The model with its trained weights shared out among the processes.

    Every block of the LLM is a unit of its own; all else is one unit, which every batch has at
    hand, whether it shows a picture or not. Frozen weights are left to each process, as a teacher
    may share them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = vlm.model
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    twin = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    trained = {id(parameter) for parameter in parameters.values()}
    if not {id(parameter) for parameter in parameters.values()} <= set(names):
        raise ConfigError(
            "the weights of two models are trained here, which cannot be shared out among "
            "processes. Type parallel=ddp."
        )
    frozen = {parameter for parameter in model.parameters() if id(parameter) not in trained}
    mesh = init_device_mesh(engine.device, (engine.processes,))
    root = Objective(engine, twin)
    for name in vlm.family.language_layers(twin).values():
        fully_shard(twin.get_submodule(name), mesh=mesh, ignored_params=frozen)
    fully_shard(root, mesh=mesh, ignored_params=frozen)
    shares = {
        name: twin.get_parameter(names[id(parameter)]) for name, parameter in parameters.items()
    }
    for parameter in parameters.values():
        parameter.data = parameter.data.new_empty(0)
    vlm.model = twin
    try:
        yield replace(engine, root=root), shares
        for name, parameter in parameters.items():
            parameter.data = full_tensor(shares[name]).detach()
    finally:
        vlm.model = model
