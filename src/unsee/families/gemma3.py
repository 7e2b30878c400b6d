"""Gemma 3: SigLIP, average pooling, a picture's tokens see each other both ways."""

from __future__ import annotations

from typing import Any, ClassVar

from unsee.errors import ModelError
from unsee.families import FAMILIES
from unsee.families.llava import Llava


@FAMILIES.register("gemma3", source="Gemma team, arXiv 2503.19786")
class Gemma3(Llava):
    """Gemma 3 (`Gemma3ForConditionalGeneration`): every picture becomes equally many tokens."""

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    nested: ClassVar[bool] = True
    resumes: ClassVar[bool] = False

    def placeholder(self, processor: Any) -> str | None:
        """The begin-of-image token, which the processor expands."""
        token: str = processor.boi_token
        return token

    def check(self, processor: Any) -> None:
        """Refuses pan and scan, whose crops are further pictures: one would have many tokens."""
        if getattr(processor.image_processor, "do_pan_and_scan", None):
            raise ModelError(
                "Gemma 3's pan and scan (do_pan_and_scan in preprocessor_config.json or "
                "processor_config.json) is not supported: crops would make a picture's tokens "
                "unequally many. Set it to false."
            )
