"""Overlaps between forget, retain and strangers: near-duplicates, concepts and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unsee.benchmarks.pocket import Pocket
from unsee.data import overlaps
from unsee.data.overlaps import (
    copies,
    distinct_photographs,
    near_duplicates,
    overlap_notes,
    photograph_groups,
)
from unsee.pixels.regions import Box, Region
from unsee.recipes.data_check import inspect
from unsee.types import Picture, Sample


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (96, 80)) -> Path:
    """A smooth picture, as a photograph is, in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((96, 80), Image.Resampling.BICUBIC).resize(size)
    image.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


def sample(path: Path, concept: str = "Ada") -> Sample:
    """A sample about a picture file."""
    return Sample(path.name, "", "", Picture.from_path(path), concept)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("b.jpg", (96, 80)),
        ("b.webp", (96, 80)),
        ("b.png", (48, 40)),
        ("b.png", (200, 160)),
        ("b.jpg", (40, 33)),
    ],
    ids=["JPEG 95", "WebP", "half", "double", "smaller JPEG"],
)
def test_near_duplicates_finds_copies(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    forget = [Picture.from_path(photo(tmp_path / f"{i}.png", i)) for i in range(4)]
    copy = Picture.from_path(photo(tmp_path / name, 2, size))
    other = Picture.from_path(photo(tmp_path / "other.png", 9))
    assert near_duplicates(forget, [other, copy]) == [(forget[2], copy)]
    assert near_duplicates([], [copy]) == near_duplicates(forget, []) == []


def test_near_duplicates_compares_pictures_of_one_colour(tmp_path: Path) -> None:
    for name, colour in (("a", 10), ("b", 11), ("c", 200)):
        Image.new("RGB", (20, 20), (colour,) * 3).save(tmp_path / f"{name}.png")
    a, b, c = (Picture.from_path(tmp_path / f"{name}.png") for name in "abc")
    assert near_duplicates([a], [b, c]) == [(a, b)]


def test_near_duplicates_tells_people_of_pocket_apart() -> None:
    data = Pocket().data()
    assert near_duplicates(data.forget_pictures, data.retain_pictures) == []
    assert near_duplicates(data.forget_pictures, data.strangers) == []


def test_overlap_notes_name_the_pairs(tmp_path: Path) -> None:
    forget = [
        sample(photo(tmp_path / "forget" / "1.png", 1), "Zoë Ada"),
        Sample("f7", "Where  does Ada live?", "Oslo.", None, "Zoë Ada"),
    ]
    retain = [
        sample(photo(tmp_path / "retain" / "9.jpg", 1), "Bo"),
        sample(photo(tmp_path / "retain" / "8.jpg", 2), "zoë ada"),
        Sample("r3", "Where does ada live?", "Oslo."),
    ]
    stranger = Picture.from_path(photo(tmp_path / "strangers" / "s.webp", 1))
    near, strange, concept, text = overlap_notes(forget, retain, [stranger])
    assert f"retain/9.jpg is like {tmp_path / 'forget' / '1.png'}" in near
    assert f"strangers/s.webp is like {tmp_path / 'forget' / '1.png'}" in strange
    assert "'Zoë Ada' (1 retain sample)" in concept
    assert "forget 'f7' is retain 'r3'" in text
    assert overlap_notes(forget, [Sample("g", "2+2?", "4")]) == []


def test_inspect_compares_with_retain_and_strangers(tmp_path: Path) -> None:
    photo(tmp_path / "forget" / "ada" / "1.png", 1)
    photo(tmp_path / "retain" / "bo" / "1.webp", 1)
    photo(tmp_path / "retain" / "ada" / "1.png", 2)
    photo(tmp_path / "strangers" / "1.png", 1)
    folders = [str(tmp_path / name) for name in ("forget", "retain", "strangers")]
    result = inspect(*folders)
    assert "data: 1 person, 1 photograph." in result["notes"]
    text = " ".join(result["notes"])
    assert "retain/bo/1.webp is like" in text
    assert "'ada' (1 retain sample)" in text
    assert "data and strangers share 1 picture," in result["problems"][0]


def test_photograph_groups_have_equal_and_encoded_copies_together(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.jpg", "d.webp", "e.png"]
    seeds = [1, 2, 1, 1, 2]
    pictures = [
        Picture.from_path(photo(tmp_path / name, seed))
        for name, seed in zip(names, seeds, strict=True)
    ]
    found = [[Path(p.source).name for p in group] for group in photograph_groups(pictures)]
    assert found == [["a.png", "c.jpg", "d.webp"], ["b.png", "e.png"]]
    assert photograph_groups([]) == []
    # With hundreds, those of other blocks are compared as well.
    many = [Picture.from_path(photo(tmp_path / f"{i}.png", i)) for i in range(10, 290)]
    assert len(photograph_groups([*pictures, *many, pictures[2]])) == 282


def test_photograph_groups_of_very_many_pictures_are_of_equal_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlaps, "MOST_COMPARED", 2)
    names = ("a.png", "b.png", "c.jpg", "d.webp")
    pictures = [Picture.from_path(photo(tmp_path / name, 1)) for name in names]
    assert [len(group) for group in photograph_groups(pictures)] == [2, 1, 1]


def test_copies_are_those_of_one_person_and_one_face(tmp_path: Path) -> None:
    group = Picture.from_path(photo(tmp_path / "group.png", 1))
    left, right = (group.of(Region(Box(*corners))) for corners in ((0, 0, 0.5, 1), (0.5, 0, 1, 1)))
    again = Picture.from_path(photo(tmp_path / "again.jpg", 1))
    samples = [
        Sample("1", "", "", group, "ada"),
        Sample("2", "", "", again, "ada"),
        Sample("3", "", "", again, "bo"),
        Sample("4", "", "", left, "cy"),
        Sample("5", "", "", right, "cy"),
    ]
    assert copies(samples) == {again.source: group.source}
    assert distinct_photographs([group, again, left, right]) == 1


def test_photographs_given_twice_count_as_one_in_a_folder(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "3.jpg"):
        photo(tmp_path / "ada" / name, 1)
    photo(tmp_path / "ada" / "4.png", 2)
    result = inspect(str(tmp_path))
    assert result["splits"]["data"]["pictures"] == 2
    counts, twice = result["notes"][:2]
    assert counts == "data: 1 person, 2 photographs and 2 copies of them."
    assert f"{tmp_path}/ada/3.jpg shows what {tmp_path}/ada/1.png shows" in twice
    assert "They count as one." in twice
