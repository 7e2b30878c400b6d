"""Distributed training: which processes train together, what each holds, in which precision.

PyTorch and accelerate do the work; `preparation.py` wraps a model for the length of a training.
The processes divide the micro-batches of a step (`accumulate`) among them. Each micro-batch is
drawn and seeded by its number alone, so a run gives the same weights on any number of processes, up
to the order of floating-point sums.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

from unsee.errors import ConfigError
from unsee.training.launcher import world_size

if TYPE_CHECKING:
    from unsee.training.settings import TrainingSettings

# Given the number of a (micro-)batch, its named loss terms.
Step = Callable[[int], Mapping[str, Tensor]]

HALF_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """A training step as a module, because DDP and FSDP wrap modules."""

    def __init__(self, context: DistributedContext, module: nn.Module) -> None:
        """Creates an objective whose `step` is set later.

        Args:
            context: The precision of the forward pass, and the number of processes.
            module: Holds the trained weights.
        """
        super().__init__()
        self.context, self.module = context, module
        self.step: Step | None = None

    def forward(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """The named loss terms of the (micro-)batch with this number, and their sum (scalars).

        Raises:
            ConfigError: If `step` was not set.
        """
        if self.step is None:
            raise ConfigError("an objective was called before its step was set.")
        with self.context.autocast():
            terms = dict(self.step(number))
            total = sum(terms.values(), torch.zeros(()))
        return terms, self._with_all_parameters(total)

    def _with_all_parameters(self, total: Tensor) -> Tensor:
        """The same sum, with a zero gradient for trained weights that the batch does not use.

        A batch without a picture does not use the visual part. Without this, processes would
        exchange gradients of different weights.
        """
        if self.context.world_size == 1:
            return total
        unsharded = [p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        if self.context.strategy == "ddp":
            # DDP finds unused parameters itself, if the loss depends on at least one parameter.
            unsharded = [] if total.requires_grad else unsharded[:1]
        return total + sum((0 * p.sum() for p in unsharded), torch.zeros(()))


@dataclass(frozen=True)
class DistributedContext:
    """How the steps of a training loop are computed.

    Attributes:
        rank: The index of this process, from 0; only process 0 writes files.
        world_size: The number of processes that train together.
        strategy: What each process holds: all trained weights ("ddp"), a shard of them and of the
            optimizer's state ("fsdp": FSDP2), or a shard of the optimizer's state only ("zero":
            DeepSpeed ZeRO).
        precision: "bf16" or "fp16" computes in it where that is safe (autocast); otherwise none.
        device: The type of device: "cpu" or "cuda".
        root: The module that FSDP has sharded, for the length of a training.
    """

    rank: int = 0
    world_size: int = 1
    strategy: str = "ddp"
    precision: str = "no"
    device: str = "cpu"
    root: Objective | None = None

    @classmethod
    def initialize(cls, settings: TrainingSettings, device: str) -> DistributedContext:
        """The context of this process; waits for the others that the launcher has started.

        Args:
            settings: The training settings.
            device: "cpu" or "cuda".

        Raises:
            ConfigError: If the settings need what this machine or the launcher does not offer.
        """
        require_supported(settings, device)
        rank, size = 0, world_size()
        if size > 1:
            from accelerate import PartialState

            rank = PartialState(cpu=device == "cpu").process_index
        return cls(rank, size, choose_strategy(settings), settings.precision, device)

    def shutdown(self) -> None:
        """Waits for the other processes and ends the process group.

        What follows a training (evaluation, attacks, writing) needs process 0 only; the caller
        decides what the others do.
        """
        if self.world_size > 1:
            dist.barrier()
            dist.destroy_process_group()

    def autocast(self) -> AbstractContextManager[Any]:
        """Computes in half precision inside the block, if `precision` is "bf16" or "fp16"."""
        dtype = HALF_DTYPES.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device, dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A loss scaler, which keeps small fp16 gradients from underflowing."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def objective(self, step: Step, parameters: Mapping[str, nn.Parameter]) -> nn.Module:
        """The step as a module whose gradients are synchronized over all processes."""
        root = self.root or Objective(self, nn.ParameterList(parameters.values()))
        root.step = step
        if self.world_size == 1 or self.strategy != "ddp":
            return root
        return nn.parallel.DistributedDataParallel(root, find_unused_parameters=True)

    def local_microbatches(self, count: int) -> range:
        """The indices, of `count` micro-batches of a step, that this process computes."""
        return range(self.rank, count, self.world_size)

    def gradient_sync(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """A block whose backward pass exchanges gradients; DDP does so after the last one only."""
        if isinstance(objective, nn.parallel.DistributedDataParallel) and not last:
            return objective.no_sync()
        return nullcontext()

    def sum_over_processes(self, terms: dict[str, float]) -> dict[str, float]:
        """The sum of every process's terms, by name."""
        if self.world_size == 1:
            return terms
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, terms)
        names = dict.fromkeys(name for local in gathered for name in local)
        return {name: sum(local.get(name, 0.0) for local in gathered) for name in names}


def choose_strategy(settings: TrainingSettings) -> str:
    """The strategy that settings and launcher ask for; see `DistributedContext.strategy`."""

    def launched_with(library: str) -> bool:
        return os.environ.get(f"ACCELERATE_USE_{library}", "false").lower() == "true"

    if world_size() == 1:
        return "ddp"
    if settings.parallel != "auto":
        return settings.parallel
    return "fsdp" if launched_with("FSDP") else "zero" if launched_with("DEEPSPEED") else "ddp"


def zero_config() -> dict[str, Any]:
    """The DeepSpeed configuration from the launcher's options or the file that they name."""
    from accelerate.utils import DeepSpeedPlugin

    config: dict[str, Any] = DeepSpeedPlugin().deepspeed_config
    return config


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of a whole tensor, if `parameter` is sharded and of the same shape."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        whole = tensor.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return tensor


def require_supported(settings: TrainingSettings, device: str) -> None:
    """Refuses settings that cannot work on this machine, before a model is loaded.

    Args:
        settings: The training settings.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: If a setting needs what this machine or the launcher does not offer.
    """
    _require_precision(settings, device)
    _require_kernels(settings, device)
    if choose_strategy(settings) == "zero":
        _require_zero()
    size = world_size()
    if settings.offload is not None and (device != "cpu" or size > 1 or sys.platform != "linux"):
        raise ConfigError(
            "offload is for one process on a CPU, under Linux. Leave it out; several processes "
            "shard the optimizer's state with parallel=fsdp."
        )
    if settings.accumulate % size:
        raise ConfigError(
            f"accumulate={settings.accumulate} batches a step cannot be divided evenly among "
            f"{size} processes. Type accumulate={size}, or a multiple of it."
        )
    local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    if device == "cuda" and size > 1 and local > torch.cuda.device_count():
        raise ConfigError(
            f"{local} processes were started here, and there are {torch.cuda.device_count()} GPUs. "
            "Start as many as there are."
        )


def _require_precision(settings: TrainingSettings, device: str) -> None:
    if settings.precision == "fp16" and device == "cpu":
        raise ConfigError("precision=fp16 needs a GPU. Type precision=bf16, or no.")
    if settings.precision == "fp16" and choose_strategy(settings) != "ddp":
        raise ConfigError(
            "precision=fp16 does not work with sharded weights. Type precision=bf16, or "
            "parallel=ddp."
        )
    if settings.precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision=bf16: this GPU does not compute in it. Type precision=fp16.")


def _require_kernels(settings: TrainingSettings, device: str) -> None:
    if settings.attention == "flash_attention_2" and (
        device == "cpu" or find_spec("flash_attn") is None
    ):
        raise ConfigError(
            "attention=flash_attention_2 needs a GPU and the package flash-attn. Type "
            "attention=sdpa, which is as fast on most of them."
        )
    compiler = find_spec("triton") if device == "cuda" else shutil.which(os.getenv("CXX", "g++"))
    if settings.compile and compiler is None:
        needs = "the package triton" if device == "cuda" else "a C++ compiler (g++, or $CXX)"
        raise ConfigError(f"compile=true needs {needs}, and there is none. Type compile=false.")


def _require_zero() -> None:
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed is not installed. Type pip install 'unsee[deepspeed]', or launch with "
            "--use_fsdp."
        )
    config = zero_config()
    stage = config["zero_optimization"]["stage"]
    if stage not in (1, 2):
        raise ConfigError(
            f"DeepSpeed's ZeRO stage {stage} is not supported. Type --zero_stage 1 or 2; "
            "FSDP2 (--use_fsdp) shards what stage 3 does."
        )
    for half in HALF_DTYPES:
        if config.get(half, {}).get("enabled") is True:
            raise ConfigError(f"the DeepSpeed config turns on {half}. Type precision={half}.")
