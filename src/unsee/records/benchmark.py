"""The record of the benchmark that a run was made on."""

from __future__ import annotations

from pydantic import Field, JsonValue

from unsee.records.part import Int, OpenRecordPart, Text


class BenchmarkRecord(OpenRecordPart):
    """The benchmark, its settings and counts."""

    name: Text | None = Field(
        default=None, description="Registered name, as in `unsee list benchmarks`."
    )
    location: Text | None = Field(
        default=None, description="Where its files were, as given on the command line."
    )
    commit: Text | None = Field(
        default=None, description="Commit that was read, if they were on the Hugging Face hub."
    )
    ratio: Text | Int | None = Field(
        default=None, description="Published share of the data to forget (%)."
    )
    shots: Int | None = Field(
        default=None,
        description="People whose questions are few-shot examples; null is the published number.",
    )
    people: Int | None = Field(
        default=None, description="Number of people that the target model knows."
    )
    concepts: Int | None = Field(
        default=None, description="Number of concepts, where a benchmark has those."
    )
    categories: Int | None = Field(
        default=None, description="Number of categories, where a benchmark has those."
    )
    forgotten: Int | None = Field(
        default=None, description="Number of people, concepts or categories to forget."
    )
    pictures: Int | None = Field(default=None, description="Number of pictures.")
    samples: dict[Text, JsonValue] | None = Field(
        default=None, description="Number of samples by split."
    )
    example_people: dict[Text, Int] | None = Field(
        default=None, description="Number of people whose questions are examples, by task."
    )
    rules: dict[Text, Text] | None = Field(
        default=None, description="Published rules that score the answers, by metric."
    )
