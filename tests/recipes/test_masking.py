"""What the messages of a redacted run hide, and what they leave readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee.recipes.masking import MASK, Mask


@pytest.fixture
def mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mask:
    """Masks a run on folders that are called by common words, and by names."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/images/ada-berg/base.png", "photos/Base/1.png", "clients/cleo/data/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "model").mkdir()
    return Mask({"model": "model", "forget": "photos", "retain": "clients/cleo/data"})


def test_common_words_are_not_masked_as_names_of_folders(mask: Mask) -> None:
    text = "model MODEL: the model has no photos; give images, or a folder of data."
    assert mask(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the photographs of ada-berg", f"the photographs of {MASK}"),
        ("ADA-BERG has few", f"{MASK} has few"),
        # With a capital, a word may be a name.
        ("Base has one photograph", f"{MASK} has one photograph"),
        ("no picture in clients/cleo/data", "no picture in RETAIN"),
        ("clients/cleo cannot be read", "RETAIN cannot be read"),
        ("see {here}/model/config.json", "see MODEL/config.json"),
        ("see {here}/photos/images/ada-berg/base.png", f"see FORGET/images/{MASK}/{MASK}"),
    ],
)
def test_names_and_paths_are_masked(mask: Mask, tmp_path: Path, text: str, expected: str) -> None:
    masked = mask(text.format(here=tmp_path))
    assert masked.casefold() == expected.casefold()
    assert str(tmp_path) not in masked


def test_names_beside_what_was_typed_are_masked_without_reading_their_folders(
    tmp_path: Path,
) -> None:
    """A message may propose what lies beside a misspelt path; the folders there may be large."""
    (tmp_path / "dora" / "emil").mkdir(parents=True)
    mask = Mask({"forget": tmp_path / "dorra"})
    assert (
        mask("no dorra. Did you mean dora, or emil?") == f"no FORGET. Did you mean {MASK}, or emil?"
    )
