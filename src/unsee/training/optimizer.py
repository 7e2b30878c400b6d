"""What a step of the training loop does to the weights: AdamW's, or DeepSpeed's with ZeRO."""

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


Edit = Callable[[Mapping[str, nn.Parameter]], None]


class OptimizerStep:
    """AdamW on the gradients of a step's batches.

    Attributes:
        objective: The loss terms and their sum, by batch.
    """

    def __init__(
        self,
        engine: DistributedContext,
        step: Step,
        parameters: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
    ) -> None:
        """Trains `parameters` on what `step` returns, as `engine` computes it."""
        self._engine, self._settings, self._parameters = engine, settings, parameters
        self._values = list(parameters.values())
        # On a CPU, torch's fused update of bfloat16 takes a fifth of the time; on a GPU it needs no
        # memory beside the state.
        fused = engine.processes == 1 and all(
            value.device.type == "cuda" or value.dtype == torch.bfloat16 for value in self._values
        )
        self._optimizer: Any = torch.optim.AdamW(
            self._values,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=fused or None,
        )
        self._scaler = engine.scaler()
        self._shelf = (
            None if settings.offload is None else OffloadedOptimizerState(settings.offload)
        )
        self.objective: Any = engine.objective(step, parameters)

    def begin(self, rate: float) -> None:
        """Starts a step at a learning rate."""
        if self._shelf is not None:
            self._shelf.evict()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)

    def backward(self, total: Tensor) -> None:
        """Adds a batch's share of the step's gradient."""
        if total.requires_grad:
            # Processes average their gradients: a share counts as often as there are some.
            share = total * self._engine.processes / self._settings.accumulate
            self._scaler.scale(share).backward()

    def reached(self) -> int:
        """How many of the trained numbers have a gradient."""
        return sum(p.numel() for p in self._values if p.grad is not None)

    def finish(self, edit: Edit | None) -> float:
        """Edits and clips the gradients; their norm before that, or 0 if it is not looked at."""
        self._scaler.unscale_(self._optimizer)
        if edit is not None:
            edit(self._parameters)
        if not self._settings.clip or not self.reached():
            return 0.0
        norm = full_tensor(nn.utils.clip_grad_norm_(self._values, self._settings.clip))
        # fp16 overflows now and then: the scaler leaves such a step out.
        return 0.0 if self._scaler.is_enabled() else float(norm)

    def step(self) -> None:
        """Changes the weights."""
        if self._shelf is not None:
            self._shelf.step(self._optimizer, self._values)
        else:
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def end(self) -> None:
        """Drops the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Weights and optimiser, whole; all processes must ask."""
        return self._weights() | {
            f"optimizer/{index}/{slot}": full_tensor(torch.as_tensor(value)).contiguous()
            for index, slots in self._optimizer.state_dict()["state"].items()
            for slot, value in slots.items()
        }

    def put(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """Puts the weights, the optimiser and the scaler of the gradients back."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(shard_like(tensors[f"parameter/{name}"], parameter))
        state = self._optimizer.state_dict()
        state["state"] = {
            index: {slot: shard_like(value, self._values[index]) for slot, value in slots.items()}
            for index, slots in _slots(tensors).items()
        }
        self._optimizer.load_state_dict(state)
        if self._shelf is not None:
            self._shelf.store(self._optimizer.state)
        self._scaler.load_state_dict(dict(scaler))

    def scaler(self) -> dict[str, Any]:
        """The state of the scaler; empty without one."""
        return self._scaler.state_dict()

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"parameter/{name}": full_tensor(parameter.detach()).contiguous()
            for name, parameter in self._parameters.items()
        }


class DeepSpeedStep(OptimizerStep):
    """AdamW by DeepSpeed: the optimiser's state, and gradients, are shared out (ZeRO 1 and 2)."""

    def __init__(
        self,
        engine: DistributedContext,
        step: Step,
        parameters: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
    ) -> None:
        """See `Update`; the launcher says how ZeRO is to work."""
        import deepspeed

        super().__init__(engine, step, parameters, settings)
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        config = zero_config() | {
            "train_batch_size": settings.accumulate,
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": settings.accumulate // engine.processes,
            "gradient_clipping": settings.clip,
            "zero_allow_untested_optimizer": True,
        }
        self.objective, self._optimizer, _, _ = deepspeed.initialize(
            model=self.objective, optimizer=self._optimizer, config=config
        )
        self._open = False

    def begin(self, rate: float) -> None:
        """See `Update.begin`; DeepSpeed drops the gradients itself."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def backward(self, total: Tensor) -> None:
        """See `Update.backward`; DeepSpeed divides by the number of batches itself."""
        if self._open:
            self.objective.step()
        self.objective.backward(total)
        self._open = True

    def reached(self) -> int:
        """All: DeepSpeed takes a missing gradient for zeros."""
        return sum(p.numel() for p in self._values)

    def finish(self, edit: Edit | None) -> float:
        """Nothing is looked at: DeepSpeed clips while it steps."""
        return 0.0

    def step(self) -> None:
        """See `Update.step`."""
        self.objective.step()
        self._open = False

    def end(self) -> None:
        """Takes the weights out of DeepSpeed's buffers."""
        for parameter in self._values:
            parameter.data = parameter.data.clone()
            parameter.grad = None
        self.objective.destroy()

    def state(self) -> dict[str, Tensor]:
        """See `Update.state`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found = self._weights()
        (inner, *_) = self._optimizer.optimizer.state.values()
        for index, parameter in enumerate(self._values):
            for slot, value in inner.items():
                if slot != "step":
                    value = safe_get_full_optimizer_state(parameter, slot)
                found[f"optimizer/{index}/{slot}"] = torch.as_tensor(value).clone().contiguous()
        return found

    def put(self, tensors: Mapping[str, Tensor], scaler: Mapping[str, Any]) -> None:
        """See `Update.put`."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        # A step that goes nowhere makes the optimiser's state, which is then overwritten.
        self.begin(0.0)
        for _ in self._engine.share(self._settings.accumulate):
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
    """An optimiser's state by the number of the parameter."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, slot = key.split("/")
            slots.setdefault(int(index), {})[slot] = value
    return slots
