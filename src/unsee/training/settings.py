"""Training settings, which every method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _no_for_false(value: object) -> object:
    """Returns "no" for False: YAML reads a plain `no` as false."""
    return "no" if value is False else value


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training loop: everything that is not a method's own hyperparameter.

    Attributes:
        steps: Optimizer steps.
        batch_size: Samples per step from each set that the method needs.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled weight decay.
        warmup: Fraction of the steps (0..1) over which the learning rate rises linearly from 0.
        schedule: Learning rate after the warm-up: "constant", or "cosine" or "linear" decay to 0.
        clip: Maximum gradient norm; 0 disables clipping.
        accumulate: Number of batches whose gradients are averaged into one step.
        save_every: Steps between resumable states; 0 saves the last one only.
        seed: Seed of data order, augmentation and every other random draw.
        lora: Rank of LoRA adapters that are trained instead of the weights; 0 trains the weights.
        lora_alpha: Scale of the adapters, times their rank.
        lora_dropout: Dropout probability of an adapter's inputs.
        precision: Mixed precision of forward and backward passes: "bf16", "fp16" (GPUs only), or
            "no" to compute in the dtype of the weights. "fp32" casts a model that is stored in
            half precision to float32 for the training.
        checkpointing: Activation checkpointing: recompute activations in the backward pass. Less
            memory, more time.
        offload: Folder for AdamW's state between the updates; one process on a CPU only. Less
            memory, the same result. None keeps the state in memory.
        workers: Threads that read and augment pictures while the step before is computed; "auto" is
            0 on a CPU. The result is the same.
        compile: Compile attention and MLP of every block with torch.compile.
        attention: "sdpa", "flash_attention_2" or "eager"; "auto" is what the model was loaded with.
        parallel: How several processes hold the trained weights: a full copy each ("ddp"), or a
            shard each ("fsdp"); "auto" is what the launcher says.
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
    precision: Annotated[Literal["no", "bf16", "fp16", "fp32"], BeforeValidator(_no_for_false)] = (
        "no"
    )
    checkpointing: bool = False
    offload: str | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    compile: bool = False
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        warmup_steps = max(1, round(self.warmup * self.steps))
        if self.warmup > 0 and step < warmup_steps:
            return self.lr * (step + 1) / warmup_steps
        if self.schedule == "constant":
            return self.lr
        done = (step - warmup_steps) / max(1, self.steps - warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * done)) if self.schedule == "cosine" else 1 - done
        return self.lr * max(factor, 0.0)
