"""The part of a record that says how recognition was measured where only photographs were given."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from unsee.records.part import Int, Number, RecordPart, Text, empty_for_none

Texts = Annotated[tuple[Text, ...], BeforeValidator(empty_for_none)]


class ForgottenPerson(RecordPart):
    """A person to be forgotten: how many photographs were given, and which."""

    concept: Text = Field(description="The person: the name of the subfolder, or a pseudonym.")
    photographs: Int = Field(default=0, description="Number of different photographs.")
    held_out: Int = Field(
        default=0, description="Number of these that were kept out of training, to test on."
    )
    sha256: Texts = Field(
        default=(),
        description="SHA-256 of each photograph's decoded pixels; salted in a redacted run.",
    )


class Recognition(RecordPart):
    """How a person's recognition was measured from photographs alone, without true answers."""

    questions: Texts = Field(
        default=(), description="Open questions that every model was asked about the photographs."
    )
    not_asked: Text | None = Field(
        default=None, description="Why no question was asked; null if the models were asked."
    )
    layers: Texts = Field(
        default=(),
        description="Encoder layers whose features were compared, besides the visual tokens that "
        "the LLM reads, or the embedding of an image encoder.",
    )
    encoder: bool = Field(
        default=False, description="Whether the model is an image encoder, which is asked nothing."
    )
    names: Int = Field(
        default=0,
        description="Number of names among which zero-shot naming chose, of an encoder with a text "
        "tower.",
    )
    identities: Int = Field(
        default=0, description="Number of people among whom a photograph was looked for."
    )
    decoys: dict[Text, Int] = Field(
        default={},
        description="These people without the person looked for, by kind: forgotten, kept, "
        "strangers (given) or drawn (faces that ship with the package).",
    )
    chance: Number = Field(
        default=None, description="Rank-1 retrieval by chance, 1 over `identities`."
    )
    false_accepts: Number = Field(
        default=None, description="Share of pairs of different people that verification accepts."
    )
    people: Annotated[tuple[ForgottenPerson, ...], BeforeValidator(empty_for_none)] = Field(
        default=(), description="The people to be forgotten."
    )
