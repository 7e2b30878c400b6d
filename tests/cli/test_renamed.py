"""Old spellings of options, which work for one more release and print a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee

pytestmark = pytest.mark.filterwarnings("default::FutureWarning")


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that compare and ablate pass on; nothing is run."""
    passed: list[Any] = []

    def compare(request: Any, *_: Any) -> list[Any]:
        passed.append(request)
        return []

    monkeypatch.setattr("unsee.studies.comparison.compare", compare)
    return passed


@pytest.mark.parametrize("words", [["compare"], ["ablate", "vkd"]], ids=["compare", "ablate"])
def test_compare_forget_is_forget_ratio(
    words: list[str], requests: list[Any], tmp_path: Path
) -> None:
    common = [*words, "--out", tmp_path / "out"]
    note = unsee(*common, "--forget", "5,10", stderr=True)
    assert "Note: option '--forget' is now called '--forget-ratio'" in note
    assert "Note:" not in unsee(*common, "--forget-ratio", "5,10", stderr=True)
    assert [tuple(request.forget_ratios) for request in requests] == [("5", "10")] * 2
    both = unsee(*common, "--forget", "5", "--forget-ratio", "5", code=2)
    assert "both are given" in both


def test_compare_attack_takes_the_form_of_recipes(requests: list[Any], tmp_path: Path) -> None:
    common = ["compare", "--out", tmp_path / "out"]
    old = ["{share: 0.2, modules: all}", "{attack: quantize, bits: 3}"]
    new = ["relearn?share=0.2&modules=all", "quantize?bits=3"]
    note = unsee(*common, *(w for text in old for w in ("--attack", text)), stderr=True)
    for spelling in new:
        assert spelling in note
    assert "Note:" not in unsee(
        *common, *(w for text in new for w in ("--attack", text)), stderr=True
    )
    expected = ({"share": 0.2, "modules": "all"}, {"attack": "quantize", "bits": 3})
    assert [request.attacks for request in requests] == [expected] * 2


def test_pocket_build_forget_is_forget_people(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts: list[int] = []

    def build(out: Path, **options: Any) -> None:
        counts.append(options["forget"])
        out.mkdir(exist_ok=True)
        (out / "build.json").write_text("{}")

    monkeypatch.setattr("unsee.pocket_builder.from_scratch.build", build)
    common = ["pocket", "build", "--out", tmp_path / "pocket"]
    note = unsee(*common, "--forget", "2", stderr=True)
    assert "Note: option '--forget' is now called '--forget-people'" in note
    assert "Note:" not in unsee(*common, "--forget-people", "2", stderr=True)
    assert "Note:" not in unsee(*common, stderr=True)
    assert counts == [2, 2, 4]
