"""Image rephrasing: the same person in other pictures, and the same picture in other forms."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from pydantic import Field

from unsee.attacks import ATTACKS, Attack, Subject, derived_picture, map_questions, variant
from unsee.types import Picture, Sample

View = Literal["other", "crop", "flip", "blur", "grey", "jpeg"]


@ATTACKS.register("rephrase_image", source="arXiv 2610.10358")
@dataclass(frozen=True)
class RephraseImage(Attack):
    """Image rephrasing: every question is asked again of other views of the same person.

    Source: the image-rephrasing attack of Open-MMUnlearning, arXiv 2610.10358.

    Attributes:
        views: "other" is another picture of the person among those the attacker has, if there is
            one; "crop" the middle, "flip" the mirror image, "blur" Gaussian, "grey" without
            colour, "jpeg" compressed.
        keep: Share of each side that a crop keeps.
        radius: Of the blur, as a share of the shorter side.
        quality: Of the JPEG.
        seed: Of the choice of other pictures.
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"views": ()}

    views: tuple[View, ...] = ("other", "crop", "flip", "blur", "grey", "jpeg")
    keep: Annotated[float, Field(gt=0, le=1)] = 0.8
    radius: Annotated[float, Field(gt=0, le=1)] = 0.02
    quality: Annotated[int, Field(ge=1, le=95)] = 30
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """The subject asked of every view; without views, as it is."""
        if not self.views:
            return subject
        others = _by_concept([*subject.attacker_samples, *subject.retain])
        rng = np.random.default_rng([self.seed, 55])
        drawn: dict[tuple[str, str], Picture] = {}

        def ask(sample: Sample) -> list[Sample]:
            picture = sample.picture
            if picture is None:
                return [sample]
            found = []
            for view in self.views:
                key = (picture.source, view)
                if view == "other":
                    rest = [p for p in others.get(sample.concept or "", ()) if p != picture]
                    if not rest:
                        continue
                    drawn.setdefault(key, rest[int(rng.integers(len(rest)))])
                elif key not in drawn:
                    image = self._view(subject.vlm.image(picture), view)
                    drawn[key] = derived_picture(picture, image, view)
                found.append(variant(sample, view, picture=drawn[key]))
            return found

        return map_questions(subject, ask)

    def _view(self, image: Image.Image, view: View) -> Image.Image:
        width, height = image.size
        if view == "crop":
            x, y = round(width * (1 - self.keep) / 2), round(height * (1 - self.keep) / 2)
            box = (x, y, max(x + 1, width - x), max(y + 1, height - y))
            return image.crop(box).resize(image.size, Image.Resampling.BICUBIC)
        if view == "flip":
            return ImageOps.mirror(image)
        if view == "blur":
            return image.filter(ImageFilter.GaussianBlur(self.radius * min(image.size)))
        if view == "grey":
            return image.convert("L").convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=self.quality)
        return Image.open(buffer).convert("RGB")


def _by_concept(samples: Sequence[Sample]) -> dict[str, list[Picture]]:
    found: dict[str, dict[str, Picture]] = {}
    for sample in samples:
        if sample.picture is not None and sample.concept:
            found.setdefault(sample.concept, {}).setdefault(sample.picture.source, sample.picture)
    return {concept: list(pictures.values()) for concept, pictures in found.items()}
