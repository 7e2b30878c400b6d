"""The engine: which processes train together, what each holds of the weights, in which precision.

All of it is PyTorch's and accelerate's; `prepare.py` puts it around a model, and takes it off
again. Processes share out the micro-batches of a step (`accumulate`), each drawn and
seeded by its number alone, so that a run gives the same weights on any number of processes, up to
the order of sums.
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


Step = Callable[[int], Mapping[str, Tensor]]


HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Objective(nn.Module):
    """A step of the loop as a module, for what wraps modules to wrap: the loss terms by batch."""

    def __init__(self, engine: DistributedContext, held: nn.Module) -> None:
        """Computes in `engine`'s precision, on weights that are in `held`."""
        super().__init__()
        self.engine, self.held = engine, held
        self.step: Step | None = None

    def forward(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """The named terms of a (micro-)batch, and their sum."""
        if self.step is None:
            raise ConfigError("an objective was asked before it was given a step.")
        with self.engine.autocast():
            terms = dict(self.step(number))
            total = sum(terms.values(), torch.zeros(()))
        return terms, self._anchored(total)

    def _anchored(self, total: Tensor) -> Tensor:
        """The same sum, reaching every weight that the other processes may wait for.

        A batch without a picture leaves the visual part out, and processes would exchange the
        gradients of different weights.
        """
        if self.engine.processes == 1:
            return total
        ready = [p for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        if self.engine.parallel == "ddp":
            # DDP itself looks for what is left out, as long as there is anything to look at.
            ready = [] if total.requires_grad else ready[:1]
        return total + sum((0 * p.sum() for p in ready), torch.zeros(()))


@dataclass(frozen=True)
class DistributedContext:
    """How the steps of a training loop are computed.

    Attributes:
        rank: Which of the processes this is, from 0; 0 alone writes.
        processes: How many train together.
        parallel: What each holds: all that is trained ("ddp"), a share of it and of the optimiser's
            state ("fsdp": FSDP2), or of the optimiser's state alone ("zero": DeepSpeed).
        precision: "bf16" or "fp16" computes in it where that is safe (autocast); "no" does not.
        device: The type of device: "cpu" or "cuda".
        root: The sharded weights, while there are some.
    """

    rank: int = 0
    processes: int = 1
    parallel: str = "ddp"
    precision: str = "no"
    device: str = "cpu"
    root: Objective | None = None

    @classmethod
    def initialize(cls, settings: TrainingSettings, device: str) -> DistributedContext:
        """This process's engine; waits for the others that the launcher has started.

        Args:
            settings: Of the training.
            device: "cpu" or "cuda".

        Raises:
            ConfigError: If the settings ask for what is not there.
        """
        check(settings, device)
        rank, processes = 0, world_size()
        if processes > 1:
            from accelerate import PartialState

            rank = PartialState(cpu=device == "cpu").process_index
        return cls(rank, processes, parallel(settings), settings.precision, device)

    def shutdown(self) -> None:
        """Ends the common work: what is left to do needs one process, and the others exit."""
        if self.processes > 1:
            dist.barrier()
            dist.destroy_process_group()
            if self.rank:
                raise SystemExit(0)

    def autocast(self) -> AbstractContextManager[Any]:
        """Computes in half precision inside the block, if it was asked for."""
        half = HALVES.get(self.precision)
        return nullcontext() if half is None else torch.autocast(self.device, half)

    def scaler(self) -> torch.amp.GradScaler:
        """What keeps fp16's small gradients from vanishing."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def objective(self, step: Step, parameters: Mapping[str, nn.Parameter]) -> nn.Module:
        """The step, wrapped so that gradients come out as those of all processes together."""
        root = self.root or Objective(self, nn.ParameterList(parameters.values()))
        root.step = step
        if self.processes == 1 or self.parallel != "ddp":
            return root
        return nn.parallel.DistributedDataParallel(root, find_unused_parameters=True)

    def share(self, count: int) -> range:
        """Which of `count` micro-batches are this process's."""
        return range(self.rank, count, self.processes)

    def gradient_sync(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Exchanges gradients in the backward pass of the block: DDP's after the last alone."""
        if isinstance(objective, nn.parallel.DistributedDataParallel) and not last:
            return objective.no_sync()
        return nullcontext()

    def add(self, terms: dict[str, float]) -> dict[str, float]:
        """The sum of every process's terms, by name."""
        if self.processes == 1:
            return terms
        everyone: list[Any] = [None] * self.processes
        dist.all_gather_object(everyone, terms)
        names = dict.fromkeys(name for some in everyone for name in some)
        return {name: sum(some.get(name, 0.0) for some in everyone) for name in names}


def parallel(settings: TrainingSettings) -> str:
    """What the processes share; see `Engine.parallel`."""

    def told(library: str) -> bool:
        return os.environ.get(f"ACCELERATE_USE_{library}", "false").lower() == "true"

    if world_size() == 1:
        return "ddp"
    if settings.parallel != "auto":
        return settings.parallel
    return "fsdp" if told("FSDP") else "zero" if told("DEEPSPEED") else "ddp"


def zero_config() -> dict[str, Any]:
    """What the launcher says of DeepSpeed: in its options, or in a file that it names."""
    from accelerate.utils import DeepSpeedPlugin

    config: dict[str, Any] = DeepSpeedPlugin().deepspeed_config
    return config


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor of which each process may hold a share; all must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's share of a whole tensor, if it is of the parameter's shape and shared out."""
    if isinstance(parameter, DTensor) and tensor.shape == parameter.shape:
        there = tensor.to(parameter.device)
        return distribute_tensor(there, parameter.device_mesh, parameter.placements)
    return tensor


def check(settings: TrainingSettings, device: str) -> None:
    """Refuses what cannot work here, before a model is loaded.

    Raises:
        ConfigError: If a setting needs what this machine, or the launcher, does not give.
    """
    processes = world_size()
    if settings.precision == "fp16" and device == "cpu":
        raise ConfigError("precision=fp16 needs a GPU. Type precision=bf16, or no.")
    if settings.precision == "fp16" and parallel(settings) != "ddp":
        raise ConfigError("precision=fp16 cannot be shared out. Type precision=bf16, or ddp.")
    if settings.precision == "bf16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision=bf16: this GPU does not compute in it. Type precision=fp16.")
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
    if parallel(settings) == "zero":
        _check_zero()
    if settings.offload is not None and (
        device != "cpu" or processes > 1 or sys.platform != "linux"
    ):
        raise ConfigError(
            "offload is for one process on a CPU, under Linux. Leave it out; several processes "
            "share out the optimiser's state with parallel=fsdp."
        )
    if settings.accumulate % processes:
        raise ConfigError(
            f"accumulate={settings.accumulate} batches a step cannot be shared out evenly among "
            f"{processes} processes. Type accumulate={processes}, or a multiple of it."
        )
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    if device == "cuda" and processes > 1 and local > torch.cuda.device_count():
        raise ConfigError(
            f"{local} processes were started here, and there are {torch.cuda.device_count()} GPUs. "
            "Start as many as there are."
        )


def _check_zero() -> None:
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "DeepSpeed is not installed. Type pip install 'unsee[deepspeed]', or launch with "
            "--use_fsdp."
        )
    config = zero_config()
    stage = config["zero_optimization"]["stage"]
    if stage not in (1, 2):
        raise ConfigError(
            f"DeepSpeed's ZeRO stage {stage} is not for this loop. Type --zero_stage 1 or 2; "
            "FSDP2 (--use_fsdp) shares out what stage 3 does."
        )
    for half in HALVES:
        if config.get(half, {}).get("enabled") is True:
            raise ConfigError(f"the DeepSpeed config turns on {half}. Type precision={half}.")
