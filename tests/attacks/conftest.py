"""The subject that tests attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from unsee.attacks import Subject
from unsee.models.vlm import VLM
from unsee.types import Data, Sample


@pytest.fixture
def subject(tiny: VLM, data: Data) -> Subject:
    """The tiny model, asked about one picture of everyone, with an attacker who has the others.

    The model before unlearning is an equal one.
    """

    def pictured(samples: Sequence[Sample], held_out: bool) -> list[Sample]:
        with_picture = [s for s in samples if s.picture is not None]
        return [s for s in with_picture if s.id.split("/")[1].startswith("2") is held_out]

    non_members = [
        replace(s, id=f"x/{s.id}", concept="Di Berg", answer=s.answer.replace("Ada", "Di"))
        for s in data.forget[:9]
    ]
    return Subject(
        tiny,
        {
            "forget_holdout": pictured(data.forget, True),
            "retain_holdout": pictured(data.retain, True),
        },
        pictured(data.forget, False),
        pictured(data.retain, False),
        non_members,
        tiny.copy(),
    )
