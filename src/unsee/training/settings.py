"""Settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _spelled(value: object) -> object:
    """YAML reads a plain `no` as false."""
    return "no" if value is False else value


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: what is not a method's own hyperparameter.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples a step from each set that the method needs.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled decay.
        warmup: Share of the steps over which the rate rises from 0.
        schedule: After the warm-up: "constant", "cosine" or "linear" to 0.
        clip: Largest gradient norm; 0 is no limit.
        accumulate: Batches whose gradients are averaged into one step.
        save_every: Steps between resumable states; 0 keeps the last alone.
        seed: Decides data order, augmentation and every other draw.
        lora: Rank of LoRA adapters that are trained in place of the weights; 0 trains the weights.
        lora_alpha: Scale of the adapters times their rank.
        lora_dropout: Share of an adapter's inputs that are dropped while training.
        precision: What forward and backward passes compute in where that is safe: "bf16", "fp16"
            (GPUs), or "no" other than the weights are in. "fp32" holds a model that is stored in
            fewer bits in 32, and computes in them.
        checkpointing: Forget what blocks computed, and compute it again for the gradient: less
            memory, more time.
        offload: Folder whose disk holds AdamW's state between the updates, on a CPU in one process:
            less memory, the same result. None keeps it in memory.
        workers: Threads that read and augment pictures while the step before is computed; "auto" is
            none on a CPU. The result is the same.
        compile: Compile the blocks' attention and MLP with torch.compile.
        attention: "sdpa", "flash_attention_2" or "eager"; "auto" is what the model was loaded with.
        parallel: What several processes hold of the trained weights: all of them ("ddp"), or a
            share each ("fsdp"); "auto" is what the launcher says.
    """

    steps: Annotated[int, Field(ge=0)] = 200
    batch_size: Annotated[int, Field(ge=1)] = 16
    lr: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    schedule: Annotated[str, Field(pattern="^(constant|cosine|linear)$")] = "cosine"
    clip: Annotated[float, Field(ge=0)] = 1.0
    accumulate: Annotated[int, Field(ge=1)] = 1
    save_every: Annotated[int, Field(ge=0)] = 50
    seed: Annotated[int, Field(ge=0)] = 0
    lora: Annotated[int, Field(ge=0)] = 0
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    precision: Annotated[Literal["no", "bf16", "fp16", "fp32"], BeforeValidator(_spelled)] = "no"
    checkpointing: bool = False
    offload: str | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    compile: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if self.warmup > 0 and step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule == "constant":
            return self.lr
        done = (step - warm) / max(1, self.steps - warm)
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return self.lr * max(factor, 0.0)
