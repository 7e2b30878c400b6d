"""Image rephrasing: other pictures of the same person, and altered versions of the picture."""

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
    """Image rephrasing: every question is asked again about other views of the same person.

    Source: the image-rephrasing attack of Open-MMUnlearning, arXiv 2610.10358.

    Attributes:
        views: "other" is another of the attacker's pictures of the person, if there is one; "crop"
            is the centre, "flip" the mirror image, "blur" Gaussian, "grey" without colour, "jpeg"
            compressed. Empty disables the attack.
        keep: Fraction of each side that "crop" keeps.
        radius: Radius of "blur", as a fraction of the shorter side.
        quality: Quality of "jpeg", 1..95.
        seed: Seed of the choice of other pictures.

    Example:
        >>> from unsee.attacks import Subject
        >>> from unsee.attacks.rephrase_image import RephraseImage
        >>> subject = Subject(vlm, {"forget_holdout": data.forget[:1]})
        >>> attacked = RephraseImage(views=("flip", "grey")).apply(subject)
        >>> [sample.id for sample in attacked.samples["forget_holdout"]]
        ['Ada Berg/0/generation || flip', 'Ada Berg/0/generation || grey']
    """

    access: ClassVar[Literal["black_box", "white_box"]] = "black_box"
    zero_budget: ClassVar[Mapping[str, Any]] = {"views": ()}

    views: tuple[View, ...] = ("other", "crop", "flip", "blur", "grey", "jpeg")
    keep: Annotated[float, Field(gt=0, le=1)] = 0.8
    radius: Annotated[float, Field(gt=0, le=1)] = 0.02
    quality: Annotated[int, Field(ge=1, le=95)] = 30
    seed: Annotated[int, Field(ge=0)] = 0

    def apply(self, subject: Subject) -> Subject:
        """Returns the subject with every question asked about every view."""
        if not self.views:
            return subject
        pictures = _pictures_by_concept([*subject.attacker_samples, *subject.retain])
        rng = np.random.default_rng([self.seed, 55])
        views: dict[tuple[str, str], Picture] = {}

        def ask_about_views(sample: Sample) -> list[Sample]:
            picture = sample.picture
            if picture is None:
                return [sample]
            variants = []
            for view in self.views:
                key = (picture.source, view)
                if view == "other":
                    others = [p for p in pictures.get(sample.concept or "", ()) if p != picture]
                    if not others:
                        continue
                    views.setdefault(key, others[int(rng.integers(len(others)))])
                elif key not in views:
                    image = self._view(subject.vlm.image(picture), view)
                    views[key] = derived_picture(picture, image, view)
                variants.append(variant(sample, view, picture=views[key]))
            return variants

        return map_questions(subject, ask_about_views)

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


def _pictures_by_concept(samples: Sequence[Sample]) -> dict[str, list[Picture]]:
    by_concept: dict[str, dict[str, Picture]] = {}
    for sample in samples:
        if sample.picture is not None and sample.concept:
            pictures = by_concept.setdefault(sample.concept, {})
            pictures.setdefault(sample.picture.source, sample.picture)
    return {concept: list(pictures.values()) for concept, pictures in by_concept.items()}
