"""The part of a record about tasks of lm-evaluation-harness."""

from __future__ import annotations

from pydantic import Field, JsonValue

from unsee.records.part import Bool, Int, RecordPart, Text


class HarnessTask(RecordPart):
    """A task or group of lm-evaluation-harness, and the samples that it asked."""

    version: JsonValue = Field(default=None, description="Version of the task.")
    shots: Int | None = Field(default=None, description="Number of few-shot examples shown.")
    samples: Int | None = Field(default=None, description="Number of samples that were asked.")
    of: Int | None = Field(default=None, description="Number of samples that the task has.")
    prompts_sha256: Text | None = Field(
        default=None,
        description="SHA-256 over prompts, generation settings, targets and pictures.",
    )
    undirected: tuple[Text, ...] = Field(
        default=(),
        description="Metrics whose direction lm-eval does not declare; they are taken as higher.",
    )


class Harness(RecordPart):
    """Tasks of lm-evaluation-harness: version, settings, and what each task asked."""

    lm_eval: Text | None = Field(default=None, description="Version of lm-evaluation-harness.")
    names: tuple[Text, ...] = Field(
        default=(), description="Tasks, groups and tags as given by the user."
    )
    path: Text | None = Field(default=None, description="Folder of the user's own tasks.")
    limit: Int | None = Field(default=None, description="Maximum number of samples per task.")
    shots: Int | None = Field(
        default=None,
        description="Number of few-shot examples as given; null leaves each task's own.",
    )
    chat_template: Bool | None = Field(
        default=None, description="Whether prompts went through the checkpoint's chat template."
    )
    seed: Int | None = Field(
        default=None,
        description="Seed of NumPy, PyTorch and the few-shot examples; Python's own is 0.",
    )
    tasks: dict[Text, HarnessTask] = Field(default={}, description="By task and group.")
