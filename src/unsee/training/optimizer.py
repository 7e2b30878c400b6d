"""The update of the weights in a training step: by AdamW, or by DeepSpeed with ZeRO."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unsee.training.distributed import (
    DistributedContext,
    Step,
    full_tensor,
    shard_like,
    zero_config,
)
from unsee.training.offload import OffloadedOptimizerState

if TYPE_CHECKING:
    from unsee.training.settings import TrainingSettings

# Edits the gradients of the parameters, given by name, in place.
GradientEdit = Callable[[Mapping[str, nn.Parameter]], None]


class OptimizerStep:
    """One step of AdamW at a time: gradients of several batches, then one update.

    Attributes:
        objective: Given the number of a batch, its named loss terms and their sum.
    """

    def __init__(
        self,
        context: DistributedContext,
        step: Step,
        parameters: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
    ) -> None:
        """Creates the optimizer.

        Args:
            context: How steps are computed, and with which other processes.
            step: Given the number of a batch, its named loss terms.
            parameters: What is trained, by name.
            settings: The training settings.
        """
        self._context, self._settings, self._parameters = context, settings, parameters
        self._values = list(parameters.values())
        # On a CPU, torch's fused update of bfloat16 takes a fifth of the time; on a GPU it needs no
        # memory beside the state.
        fused = context.world_size == 1 and all(
            value.device.type == "cuda" or value.dtype == torch.bfloat16 for value in self._values
        )
        self._optimizer: Any = torch.optim.AdamW(
            self._values,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=fused or None,
        )
        self._scaler = context.scaler()
        self._offloaded = (
            None if settings.offload is None else OffloadedOptimizerState(settings.offload)
        )
        self.objective: Any = context.objective(step, parameters)

    def start_step(self, rate: float) -> None:
        """Sets the learning rate and drops the gradients of the step before."""
        if self._offloaded is not None:
            self._offloaded.evict()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, total: Tensor) -> None:
        """Adds a batch's part of the step's gradient; `total` is the batch's loss (scalar)."""
        if total.requires_grad:
            # Processes average their gradients, so each counts world_size times.
            scaled = total * self._context.world_size / self._settings.accumulate
            self._scaler.scale(scaled).backward()

    def count_with_gradient(self) -> int:
        """The number of trained values (elements, not tensors) that have a gradient."""
        return sum(p.numel() for p in self._values if p.grad is not None)

    def clip_gradients(self, edit: GradientEdit | None) -> float:
        """Edits, then clips the gradients.

        Args:
            edit: Edits them in place, such as a mask.

        Returns:
            The gradients' norm before clipping; 0 if it is not computed.
        """
        self._scaler.unscale_(self._optimizer)
        if edit is not None:
            edit(self._parameters)
        if not self._settings.clip or not self.count_with_gradient():
            return 0.0
        norm = full_tensor(nn.utils.clip_grad_norm_(self._values, self._settings.clip))
        # With fp16 a norm may overflow; the scaler then skips the step.
        return 0.0 if self._scaler.is_enabled() else float(norm)

    def step(self) -> None:
        """Updates the weights."""
        if self._offloaded is not None:
            self._offloaded.step(self._optimizer, self._values)
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def release(self) -> None:
        """Drops the gradients at the end of the training."""
        self._optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Tensor]:
        """Whole weights and optimizer state, unsharded; every process must call it."""
        return self._weights() | {
            f"optimizer/{index}/{slot}": full_tensor(torch.as_tensor(value)).contiguous()
            for index, slots in self._optimizer.state_dict()["state"].items()
            for slot, value in slots.items()
        }

    def load_state(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """Restores the weights, the optimizer and the loss scaler.

        Args:
            tensors: What `state_dict` returned.
            scaler: What `scaler_state` returned.
        """
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(shard_like(tensors[f"parameter/{name}"], parameter))
        state = self._optimizer.state_dict()
        state["state"] = {
            index: {slot: shard_like(value, self._values[index]) for slot, value in slots.items()}
            for index, slots in _slots(tensors).items()
        }
        self._optimizer.load_state_dict(state)
        if self._offloaded is not None:
            self._offloaded.store(self._optimizer.state)
        self._scaler.load_state_dict(dict(scaler))

    def scaler_state(self) -> dict[str, Any]:
        """The state of the loss scaler; empty without fp16."""
        return self._scaler.state_dict()

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"parameter/{name}": full_tensor(parameter.detach()).contiguous()
            for name, parameter in self._parameters.items()
        }


class DeepSpeedStep(OptimizerStep):
    """AdamW by DeepSpeed: optimizer state and gradients are sharded (ZeRO stages 1 and 2)."""

    def __init__(
        self,
        context: DistributedContext,
        step: Step,
        parameters: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
    ) -> None:
        """See `OptimizerStep`; the launcher gives the ZeRO configuration."""
        import deepspeed

        super().__init__(context, step, parameters, settings)
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        config = zero_config() | {
            "train_batch_size": settings.accumulate,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": settings.accumulate // context.world_size,
            "gradient_clipping": settings.clip,
            "zero_allow_untested_optimizer": True,
        }
        self.objective, self._optimizer, _, _ = deepspeed.initialize(
            model=self.objective, optimizer=self._optimizer, config=config
        )
        self._step_is_pending = False

    def start_step(self, rate: float) -> None:
        """See `OptimizerStep.start_step`; DeepSpeed drops the gradients itself."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def backward(self, total: Tensor) -> None:
        """See `OptimizerStep.backward`; DeepSpeed divides by the number of batches itself."""
        if self._step_is_pending:
            self.objective.step()
        self.objective.backward(total)
        self._step_is_pending = True

    def count_with_gradient(self) -> int:
        """All trained values: DeepSpeed treats a missing gradient as zeros."""
        return sum(p.numel() for p in self._values)

    def clip_gradients(self, edit: GradientEdit | None) -> float:
        """Returns 0: DeepSpeed clips in its own step."""
        return 0.0

    def step(self) -> None:
        """See `OptimizerStep.step`."""
        self.objective.step()
        self._step_is_pending = False

    def release(self) -> None:
        """Takes the weights out of DeepSpeed's buffers and drops the gradients."""
        for parameter in self._values:
            parameter.data = parameter.data.clone()
            parameter.grad = None
        self.objective.destroy()

    def state_dict(self) -> dict[str, Tensor]:
        """See `OptimizerStep.state_dict`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors = self._weights()
        (inner, *_) = self._optimizer.optimizer.state.values()
        for index, parameter in enumerate(self._values):
            for slot, value in inner.items():
                if slot != "step":
                    value = safe_get_full_optimizer_state(parameter, slot)
                tensors[f"optimizer/{index}/{slot}"] = torch.as_tensor(value).clone().contiguous()
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """See `OptimizerStep.load_state`."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        # A step with learning rate 0 creates the optimizer's state, which is then overwritten.
        self.start_step(0.0)
        for _ in self._context.local_microbatches(self._settings.accumulate):
            self.backward(sum((0 * value.sum() for value in self._values), torch.zeros(())))
        self.step()
        for name, parameter in self._parameters.items():
            with torch.no_grad():
                parameter.copy_(tensors[f"parameter/{name}"])
            safe_set_full_fp32_param(parameter, tensors[f"parameter/{name}"])
        for index, slots in _slots(tensors).items():
            for slot, value in slots.items():
                if slot != "step":
                    safe_set_full_optimizer_state(self._values[index], value, slot)
                    continue
                for inner in self._optimizer.optimizer.state.values():
                    inner["step"] = value.to(inner["step"]) if slot in inner else value.clone()


def _slots(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The optimizer's state tensors by name, by the number of the parameter."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = value
    return slots
