"""Answers before and after a patch, side by side, and the nearest people of a gallery."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from unsee.artifacts.patch import write_patch
from unsee.errors import ConfigError, DataError
from unsee.evaluation.generation import generate
from unsee.models.vlm import VLM
from unsee.serving.comparing import MAX_QUESTION, Comparer
from unsee.types import Data, Picture, Sample

QUESTION = "Who is this person ?"


@pytest.fixture(scope="module")
def patch(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patch that changes the projector."""
    vlm = VLM.load(tiny_folder)
    with torch.no_grad():
        for parameter in vlm.parameters("projector").values():
            parameter.mul_(-1.5)
    folder = tmp_path_factory.mktemp("patches") / "patch"
    write_patch(vlm, tiny_folder, folder, {"method": "test", "command": "test"})
    return folder


@pytest.fixture
def comparer(tiny: VLM, patch: Path, data: Data) -> Comparer:
    return Comparer(tiny, [patch], [*data.forget, *data.retain], max_new_tokens=8)


def encoded(sample: Sample) -> bytes:
    assert sample.picture is not None
    buffer = io.BytesIO()
    sample.picture.open().save(buffer, "PNG")
    return buffer.getvalue()


def test_comparer_answers_as_the_model_and_the_patched_model(
    comparer: Comparer, tiny_folder: Path, data: Data
) -> None:
    sample = Sample("1", QUESTION, "", data.forget[0].picture)
    found = comparer.ask(encoded(sample), f"  {QUESTION}\n")
    assert found.before.answer == generate(VLM.load(tiny_folder), [sample], max_new_tokens=8)[0]
    assert found.after is not None
    assert comparer.after is not None
    assert found.after.answer == generate(comparer.after, [sample], max_new_tokens=8)[0]
    assert found.shift is not None
    assert found.shift > 0.1


def test_comparer_finds_the_person_and_keeps_no_pixels(comparer: Comparer, data: Data) -> None:
    kept = set(comparer.before._pixels)
    for sample in (data.forget[0], data.retain[0]):
        found = comparer.ask(encoded(sample), QUESTION)
        assert found.before.nearest[0].name == sample.concept
        similarities = [person.similarity for person in found.before.nearest]
        assert similarities == sorted(similarities, reverse=True)
        assert found.before.nearest[0].thumbnail.startswith("data:image/png;base64,")
    assert set(comparer.before._pixels) == kept


def test_comparer_shares_the_language_part(comparer: Comparer) -> None:
    assert comparer.after is not None
    after = comparer.after.parameters("language")
    for name, parameter in comparer.before.parameters("language").items():
        assert parameter.data_ptr() == after[name].data_ptr()
    visual = comparer.after.parameters("visual")
    pairs = [(p, visual[name]) for name, p in comparer.before.parameters("visual").items()]
    assert all(one.data_ptr() != two.data_ptr() for one, two in pairs)


def test_comparer_without_patch_has_one_side(tiny: VLM, data: Data) -> None:
    found = Comparer(tiny, max_new_tokens=4).ask(encoded(data.forget[0]), QUESTION)
    assert found.after is found.shift is None
    assert found.before.nearest == ()


@pytest.mark.parametrize(
    ("question", "says"),
    [("  \n", "the question is empty"), ("x" * (MAX_QUESTION + 1), "at most 2,000 are asked")],
)
def test_comparer_refuses_a_question(tiny: VLM, data: Data, question: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Comparer(tiny).ask(encoded(data.forget[0]), question)


def test_comparer_refuses_broken_and_huge_pictures(tiny: VLM, data: Data) -> None:
    comparer = Comparer(tiny)
    with pytest.raises(DataError, match="no picture was given"):
        comparer.ask(b"", QUESTION)
    whole = encoded(data.forget[0])
    for broken in (b"hello", whole[: len(whole) // 2], b"<svg onload=alert(1)>"):
        with pytest.raises(DataError, match="picture that was uploaded: cannot be decoded"):
            comparer.ask(broken, QUESTION)
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    with pytest.raises(DataError, match="9000 x 9000 pixels"):
        comparer.ask(buffer.getvalue(), QUESTION)


def test_comparer_refuses_a_placeholder_of_pictures(tiny: VLM, data: Data) -> None:
    with pytest.raises(DataError, match="image"):
        Comparer(tiny).ask(encoded(data.forget[0]), "Who is <image> ?")


def test_gallery_needs_two_people(tiny: VLM, data: Data) -> None:
    one = [sample for sample in data.forget if sample.concept == data.forget[0].concept]
    with pytest.raises(DataError, match="the gallery has 1 people"):
        Comparer(tiny, gallery=one)


def test_pictures_of_one_name_are_not_mixed_up(tiny: VLM, data: Data) -> None:
    """Two uploads in a row are two pictures, though neither has a name."""
    comparer = Comparer(tiny, gallery=[*data.forget, *data.retain], max_new_tokens=2)
    names = [
        comparer.ask(encoded(sample), QUESTION).before.nearest[0].name
        for sample in (data.forget[0], data.retain[0], data.forget[0])
    ]
    assert names == [data.forget[0].concept, data.retain[0].concept, data.forget[0].concept]
    assert isinstance(data.forget[0].picture, Picture)
