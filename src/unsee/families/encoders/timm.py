"""timm: any image encoder of the package timm, in transformers' wrapper."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from unsee.errors import ModelError
from unsee.families import Family
from unsee.families.encoders import ENCODERS
from unsee.families.encoders.network import Network
from unsee.types import Parts

WRAPPED = "timm_model."
# The packages that transformers reads its checkpoints with.
NEEDED = ("timm", "torchvision")


@ENCODERS.register("timm", source="Wightman, PyTorch Image Models, doi 10.5281/zenodo.4414861")
class Timm(Network):
    """An encoder of timm (`TimmWrapperModel`); a classifier's head is kept as it is, untrained."""

    model_types: ClassVar[tuple[str, ...]] = ("timm_wrapper",)
    parts: ClassVar[Parts] = Parts(encoder=(WRAPPED,), projector=(), language=())

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Family:
        """The family, if what reads a checkpoint of it is installed.

        Raises:
            ModelError: If it is not.
        """
        missing = [name for name in NEEDED if config and find_spec(name) is None]
        if missing:
            raise ModelError(
                f"this is an encoder of timm, and {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not installed. Type: pip install "
                f"{' '.join(missing)}"
            )
        return cls()

    def visual_layers(self, model: Any) -> dict[str, str]:
        """Every block or stage, then what stands where the classifier was: it passes the embedding.

        Raises:
            ModelError: If that is not a module of its own.
        """
        classifier = model.timm_model.get_classifier()
        names = [name for name, module in model.named_modules() if module is classifier]
        if not names:
            raise ModelError(
                f"timm's {model.config.architecture} has no single classifier, behind whose place "
                "the embedding could be read. Give an architecture with one, such as a ViT."
            )
        blocks = {f"encoder.{i}": name for i, name in enumerate(self._blocks(model))}
        return blocks | {"projector": names[0]}

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """The name itself, and timm's own, which lacks the wrapper's prefix."""
        return (name, name.removeprefix(WRAPPED))
