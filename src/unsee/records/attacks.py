"""The part of a record about attacks: recovery curves, answers before and after, readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue

from unsee.records.part import Float, Int, Number, RecordPart, Text, empty_for_none

# What a relearning attacker has a share of, by `RelearningOutcome.data`.
GIVEN = {
    "forget": "of the forget samples",
    "retain": "of the retain samples, and no forget sample",
    "held_out_people": "of the forgotten people, asked about the others",
    "other_pictures": "of the forget pictures as drawings",
}


class CurvePoint(RecordPart):
    """The scores at one checkpoint of a relearning attack."""

    step: Int = Field(description="Attack steps done; 0 is before the attack.")
    value: Number = Field(default=None, description="Score on `measure` of the attack, 0..1.")
    low: Number = Field(default=None, description="Lower end of the 95 % interval of `value`.")
    high: Number = Field(default=None, description="Upper end of the 95 % interval of `value`.")
    retain: Number = Field(
        default=None,
        description="Score on `retain_measure` of the attack, 0..1; null for the references.",
    )
    by_person: dict[Text, Number] = Field(default={}, description="Mean score by person, 0..1.")
    resolution: Number = Field(
        default=None,
        description="Smallest step of a person's score: 1 over their number of questions where "
        "answers are right or wrong, else 0.",
    )
    lr: Float | None = Field(
        default=None,
        description="Learning rate at which the point was reached, of an attack with `worst_case`.",
    )


class RelearningOutcome(RecordPart):
    """A relearning attack with one budget, on the unlearned model and on the references."""

    share: Float = Field(
        description="Share of each person's pictures that the attacker has, 0..1; of the people "
        "with data=held_out_people."
    )
    data: Text = Field(
        default="forget",
        description="What the attacker has: forget, retain (other people's samples alone), "
        "held_out_people (some of the forgotten people; the others are asked about) or "
        "other_pictures (drawings).",
    )
    worst_case: Text = Field(
        default="off", description="quick or full if many learning rates were tried, else off."
    )
    worst: dict[Text, CurvePoint] = Field(
        default={},
        description="The point with the highest score over all learning rates and steps, by "
        "model; only with `worst_case`.",
    )
    sweep: dict[Text, tuple[CurvePoint, ...]] = Field(
        default={},
        description="All points of all learning rates, by model; only with `worst_case`.",
    )
    steps: Int = Field(description="Number of optimiser steps of the attack.")
    lr: Float | None = Field(default=None, description="Learning rate of the attack.")
    batch_size: Int | None = Field(default=None, description="Samples per step of the attack.")
    modules: Text = Field(
        default="all",
        description="What the attacker trains: visual, language_lora (LoRA on the LLM) or all.",
    )
    rank: Int | None = Field(default=None, description="Rank of the LoRA adapters, if any.")
    seed: Int | None = Field(default=None, description="Seed of the attack.")
    measure: Text = Field(
        default="",
        description="Key of the measure of the curves, such as forget_holdout/vqa/accuracy.",
    )
    retain_measure: Text | None = Field(
        default=None, description="Key of the measure of `retain` in the curves."
    )
    curves: dict[Text, tuple[CurvePoint, ...]] = Field(
        default={},
        description="Points in order of steps, by model: unlearned, reference, retain_only and "
        "visual_refit. With `worst_case`, the worst point that any learning rate has reached by "
        "each step.",
    )
    area_to_reference: Number = Field(
        default=None,
        description="Mean over the steps of the unlearned model's score minus the reference "
        "model's, -1..1; 0 is as hard to relearn as for a model that never saw the people; null "
        "without a reference.",
    )
    unsigned_area_to_reference: Number = Field(
        default=None,
        description="Mean over the steps of the absolute difference, 0..1: early weakness does not "
        "cancel late strength; null without a reference.",
    )
    worst_gap: Number = Field(
        default=None,
        description="The difference to the reference at the checkpoint where it is largest in "
        "absolute value, -1..1; null without a reference.",
    )
    worst_step: Int | None = Field(default=None, description="Step of `worst_gap`.")
    steps_to_half_recovery: Number = Field(
        default=None,
        description="Step, interpolated between checkpoints, at which the unlearned model reaches "
        "half of the target model's score; null if it never does.",
    )
    # The key is older than the name of the field.
    max_new_tokens: dict[Text, Int] = Field(
        default={},
        alias="longest",
        description="Maximum number of generated tokens per answer, by held-out split.",
    )

    @property
    def given(self) -> str:
        """Words for what `share` is a share of, such as "of the forget samples"."""
        return GIVEN.get(self.data, f"of {self.data}")

    def curve(self, model: str) -> tuple[CurvePoint, ...]:
        """The points of "unlearned" or of a reference, such as "retain_only", in order of steps."""
        return tuple(sorted(self.curves.get(model, ()), key=lambda point: point.step))


class AnswerComparison(RecordPart):
    """How often the true answer is given before and after an attack, over the same questions."""

    before: Number = Field(
        default=None, description="Share of questions answered right before the attack, 0..1."
    )
    after: Number = Field(
        default=None, description="Share of questions answered right after the attack, 0..1."
    )
    low: Number = Field(default=None, description="Lower end of the 95 % interval of `after`.")
    high: Number = Field(default=None, description="Upper end of the 95 % interval of `after`.")
    any: Number = Field(
        default=None,
        description="Share of questions answered right in at least one variant, 0..1.",
    )
    n: Int | None = Field(default=None, description="Number of questions.")
    variants: dict[Text, Number] = Field(
        default={}, description="`after` by variant of the attack, such as flip or role_play."
    )
    by_person: dict[Text, Number] = Field(
        default={}, description="Mean score by person, 0..1 after the attack."
    )
    resolution: Number = Field(
        default=None,
        description="Smallest step of a person's score: 1 over their number of questions where "
        "answers are right or wrong, else 0.",
    )


class AttackAnswers(RecordPart):
    """A model's answers under an attack, by whom the questions are about."""

    forget: AnswerComparison | None = Field(
        default=None,
        description="Held-out pictures of the forgotten people; null if no question is left.",
    )
    retain: AnswerComparison | None = Field(
        default=None, description="Up to 60 questions about other people; null if none is left."
    )


class Reading(RecordPart):
    """A number that an attack computes from a model without asking it a question."""

    name: Text = Field(default="", description="What is computed, such as loss AUC.")
    forget: Number = Field(default=None, description="For the forgotten people, 0..1.")
    low: Number = Field(default=None, description="Lower end of the 95 % interval of `forget`.")
    high: Number = Field(default=None, description="Upper end of the 95 % interval of `forget`.")
    n: Int | None = Field(
        default=None, description="Number of samples or pictures of the forgotten people."
    )
    retain: Number = Field(
        default=None, description="For everyone else, 0..1; null if it cannot be computed."
    )
    baseline: Number = Field(
        default=None,
        description="Value without any leakage: 0.5 for an AUC, random labels for a probe.",
    )
    details: dict[Text, Number] = Field(
        default={}, description="Further numbers by name, such as tpr_at_1_fpr."
    )


class AttackedModel(RecordPart):
    """One model under an attack; it has `answers`, `readings` or both."""

    answers: AttackAnswers | None = Field(
        default=None, description="Answers before and after, of attacks that ask questions."
    )
    readings: tuple[Reading, ...] | None = Field(
        default=None, description="Numbers of attacks that read something off the model."
    )
    seconds: Number = Field(default=None, description="Wall-clock time of the attack (s).")


class AttackOutcome(RecordPart):
    """An attack other than relearning alone, or a chain of attacks, with one budget."""

    access: tuple[Text, ...] = Field(
        default=(), description="black_box or white_box, for each attack of the chain in turn."
    )
    parameters: dict[Text, dict[str, JsonValue]] = Field(
        default={}, description="All fields of every attack of the chain, by attack."
    )
    models: dict[Text, AttackedModel] = Field(
        default={},
        description="Outcome by model: unlearned, references and target.",
    )


class Attacks(RecordPart):
    """Attack outcomes by attack or chain, such as "quantize+jailbreak"; one entry per budget."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[
        str, Annotated[tuple[AttackOutcome, ...], BeforeValidator(empty_for_none)]
    ] = Field(init=False)

    relearn: Annotated[tuple[RelearningOutcome, ...], BeforeValidator(empty_for_none)] = Field(
        default=(), description="Relearning attacks, each with recovery curves."
    )

    @property
    def others(self) -> Mapping[str, tuple[AttackOutcome, ...]]:
        """All attacks but relearning alone, by name, in the record's order."""
        return self.__pydantic_extra__ or {}
