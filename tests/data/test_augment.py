"""Random views of pictures."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from unsee.data.augment import augment, composites
from unsee.types import Picture, Sample


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_strength_zero_is_the_picture_itself() -> None:
    image = picture()
    assert augment(image, np.random.default_rng(1), 0.0) is image


def test_views_are_seeded_keep_the_size_and_leave_the_picture_alone() -> None:
    image = picture()
    before = image.tobytes()
    first = augment(image, np.random.default_rng(1), 1.0)
    again = augment(image, np.random.default_rng(1), 1.0)
    other = augment(image, np.random.default_rng(2), 1.0)
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert first.size == image.size and first.mode == "RGB"
    assert image.tobytes() == before


def test_a_large_picture_is_reduced_first() -> None:
    image = picture().resize((240, 192))
    sizes = {None: (240, 192), 49: (240, 192), 48: (120, 96), 24: (60, 48), 10: (27, 22)}
    for side, size in sizes.items():
        assert augment(image, np.random.default_rng(1), 1.0, side).size == size
    assert augment(image, np.random.default_rng(1), 0.0, 10) is image


def test_every_view_takes_equally_many_draws() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        augment(picture(), rng, 0.7)
    expected = np.random.default_rng(5)
    for _ in range(20):
        expected.random(2)
        expected.uniform(-0.7, 0.7, 6)
        expected.integers(2**31)
    assert rng.random() == expected.random()


def test_composites_join_two_people_and_show_neither() -> None:
    def sample(name: str, concept: str | None, colour: tuple[int, int, int], side: int) -> Sample:
        with io.BytesIO() as file:
            Image.new("RGB", (2 * side, side), colour).save(file, "PNG")
            return Sample(name, "", "", Picture(name, data=file.getvalue()), concept)

    red, blue = sample("a", "ada", (200, 0, 0), 24), sample("b", "bo", (0, 0, 100), 900)
    pictures = composites([red, blue, red], 6)
    assert len({picture.source for picture in pictures}) == 6
    assert {picture.open().size for picture in pictures} <= {(48, 24), (896, 448)}
    for picture in pictures:
        levels = np.asarray(picture.open()).max(2)
        # The upper part is one person's, the lower the other's, whatever their hues; no black edge.
        assert abs(int(levels[0, 0]) - int(levels[-1, -1])) >= 95
        assert levels.min() >= 60
    again = composites([red, blue, red], 6)
    assert [p.digest for p in again] == [p.digest for p in pictures]
    assert [p.digest for p in composites([red, blue], 6, seed=1)] != [p.digest for p in pictures]
    assert [p.open().size for p in composites([red], 2)] == [(48, 24)] * 2
    assert composites([Sample("t", "q", "a")], 3) == []
    tiny = composites([sample("t", "ada", (1, 2, 3), 3), sample("u", "bo", (9, 9, 9), 1)], 4)
    assert {picture.open().size for picture in tiny} <= {(6, 3), (2, 1)}
