"""The part of a record that judges it: did the target model learn, and tests of equivalence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unsee.records.part import Bool, Float, Int, Number, RecordPart, Text


class LearnedCheck(RecordPart):
    """Whether the target model knew enough of what is to be forgotten to judge forgetting."""

    measure: Text = Field(
        default="", description="Key of the measure, such as forget_holdout/vqa/accuracy."
    )
    target: Number = Field(default=None, description="The target model's score, 0..1.")
    floor: Number = Field(
        default=None, description="Score of a model that never saw the people, 0..1."
    )
    floor_of: Text = Field(
        default="chance",
        description="Where `floor` comes from: reference, retain_only, other_people (how often the "
        "target says it of others, where only photographs were given), or chance (guessing among "
        "the options of a question; 0 for open questions).",
    )
    headroom: Number = Field(
        default=None, description="`target` minus `floor`: how much can be forgotten, -1..1."
    )
    required: Float = Field(
        default=0.2, description="Headroom below which scores of forgetting mean nothing."
    )
    enough: Bool = Field(default=True, description="Whether `headroom` is at least `required`.")


class EquivalenceTest(RecordPart):
    """A test whether a measure of the unlearned model equals the visual-retain reference's."""

    attack: Text = Field(
        default="", description="The attack, as after `--attack`; empty before any attack."
    )
    step: Int | None = Field(
        default=None, description="Step of a relearning attack where the difference is largest."
    )
    measure: Text = Field(
        default="", description="Key of the measure, or the name of what an attack reads."
    )
    outcome: Literal["indistinguishable", "distinguishable", "too_few"] = Field(
        default="too_few",
        description="indistinguishable: the interval lies within the margin; distinguishable: it "
        "lies beyond; too_few: neither, so there are not enough people to tell.",
    )
    side: Literal["above", "below"] = Field(
        default="above", description="Whether the model scores above or below the reference."
    )
    difference: Number = Field(
        default=None, description="Mean difference to the reference over people, -1..1."
    )
    low: Number = Field(default=None, description="Lower end of the 90 % interval; null if none.")
    high: Number = Field(default=None, description="Upper end of the 90 % interval.")
    margin: Float = Field(
        default=0.05, description="Difference below which two scores count as equal."
    )
    p: Number = Field(
        default=None, description="The larger p-value of the two one-sided tests (TOST)."
    )
    people: Int = Field(default=0, description="Number of people.")
    needed: Int | None = Field(
        default=None,
        description="Number of people that would decide the test with a probability of 0.8; null "
        "if none would.",
    )
    test: Text = Field(
        default="paired t",
        description="paired t: over people; unpaired normal: from the two 95 % intervals; none.",
    )
