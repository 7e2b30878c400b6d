"""Wording of numbers, answers, hyperparameters and selections; documentation of keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support import ROOT
from support.report_record import (
    make_run,
    sample_scores,
    sample_steps,
    sample_summary,
)
from unsee import report
from unsee.report import details, wording
from unsee.report.people import same

DOCS = ROOT / "docs" / "records.md"


def test_wording_formats_durations_sizes_and_scores() -> None:
    said = [wording.duration(s) for s in (0.44, 9.96, 42.4, 119.6, 200, 7260)]
    assert said == ["0.4 s", "10.0 s", "42 s", "2 min 0 s", "3 min 20 s", "2 h 1 min"]
    said = [wording.size(b) for b in (0, 999, 1500, 312e6, 999.6e6, 2e13)]
    assert said == ["0 bytes", "999 bytes", "1.5 kB", "312 MB", "1.0 GB", "20.0 TB"]
    assert [wording.signed(v) for v in (0.034, -0.2, -0.001)] == [
        "+0.03",
        "\N{MINUS SIGN}0.20",
        "0.00",
    ]
    assert wording.way("accuracy", 0.95, 0.02) == "95 \N{RIGHTWARDS ARROW} 2 %"
    assert wording.way("rouge_l", None, 0.5) == "0.50"
    assert wording.score("accuracy", None) == "unscored"
    said = [wording.steps(n) for n in (15.3125, 99.5, 7.53125, 1.0, 0.4, 0)]
    assert said == ["15 steps", "100 steps", "7.5 steps", "1 step", "0.4 steps", "0 steps"]


def test_wording_same_ignores_case_spaces_and_the_final_stop() -> None:
    assert same("  this is ada  BERG", "This is Ada Berg.")
    assert not same("This is Ada.", "This is Ada Berg.")


def keys_of(content: Any) -> set[str]:
    """Every fixed key in a record; measures, models and terms are named by the user's data."""
    free = {
        "parameters",
        "measures",
        "target",
        "reference",
        "retain_only",
        "terms",
        "scores",
        "by_layer",
    }
    if isinstance(content, list):
        return set().union(*map(keys_of, content)) if content else set()
    if not isinstance(content, dict):
        return set()
    found = set(content)
    for key, value in content.items():
        if key in free and isinstance(value, dict):
            found |= set().union(*(keys_of(inner) for inner in value.values()), set())
        else:
            found |= keys_of(value)
    return found


def test_documentation_names_every_key() -> None:
    documented = set(re.findall(r"`([^`\n]+)`", DOCS.read_text(encoding="utf-8")))
    keys = keys_of([sample_summary(), *sample_steps(2), *sample_scores()])
    assert {"steps_to_half_recovery", "n_unscored", "changed_tensors", "output"} <= keys
    assert keys - documented == set()
    for measure in sample_summary()["measures"]:
        assert set(measure.split("/")) <= documented


def test_parameters_list_the_choices_of_the_method(tmp_path: Path) -> None:
    shown, defaults = details.parameters(report.read_run(make_run(tmp_path)))
    rows = {row.label: row for row in shown}
    assert defaults == []
    assert rows["Mask preserved by name"].value == "48"
    assert rows["Mask visual chosen"].value == "98,648 of 686,848"
    assert rows["Neurons chosen"].value == "115 of 2,304"
    assert rows["Neurons chosen"].note == "encoder 64, language 51"
