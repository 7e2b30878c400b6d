"""The table of model types: steps on a tiny checkpoint, rows, and the page's section."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments.quality import families
from experiments.quality.families_page import OTHER_KINDS, outcome, section
from experiments.tiny.make import MODEL_TYPES

STEPS = tuple(families.STEPS)
WORKED = dict.fromkeys(("made", *STEPS), "")


def row(name: str, needs: list[str], **told: str) -> dict[str, object]:
    steps = {**WORKED, **{key.replace("_", " "): value for key, value in told.items()}}
    facts = {"transformers": "5.23.0", "commit": "abc"}
    return {"type": name, "steps": steps, "needs": needs, **facts}


# peft asks transformers by an old name.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
def test_try_type_takes_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert families.try_type("vipllava", tmp_path) == WORKED


def test_try_type_says_why_there_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = families.try_type("mistral4", tmp_path)
    assert told == {"made": "transformers has no processor of pictures and text for it"}


def test_outcome_tells_refused_from_in_part() -> None:
    assert outcome(WORKED, STEPS) == "works"
    assert outcome({**WORKED, "LoRA": "no"}, STEPS) == "in part"
    assert outcome({"made": "", **dict.fromkeys(STEPS, "no")}, STEPS) == "refused"
    assert outcome({"made": "needs timm"}, STEPS) == "not made"
    assert outcome({"made": "", "time": "not finished after 9 seconds"}, STEPS) == "not finished"


def test_section_takes_the_last_row_of_a_type() -> None:
    rows = [
        row("git", [], loads="old | reason"),
        row("git", [], loads="a <new> | reason"),
        row("llama4", ["torchvision"]),
    ]
    text = section(rows, ["git", "llama4", "udop"], STEPS)
    assert text.startswith(
        "Of 3 types: 1 works, 1 in part, 0 refused, 0 not finished, 0 not made, 1 not tried yet."
    )
    assert "a &lt;new&gt; \\| reason" in text
    assert "old" not in text
    assert "| `llama4` | works | yes | yes | yes | yes | yes | yes | torchvision |" in text


def test_other_kinds_are_types_of_transformers() -> None:
    assert set(OTHER_KINDS) <= set(MODEL_TYPES)
