"""Networks of the user's own, such as those that were made to recognise faces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from unsee.errors import ModelError
from unsee.families import Family
from unsee.families.encoders import ENCODERS
from unsee.families.encoders.functions import KIND, Preprocessing, refuse_unless_allowed
from unsee.families.encoders.network import Network
from unsee.types import Parts

WRAPPED = "network."


@ENCODERS.register("module", source="any torch.nn.Module: --model MODULE:FUNCTION")
class Module(Network):
    """A network that a function returns with its preprocessing (`--model MODULE:FUNCTION`)."""

    model_types: ClassVar[tuple[str, ...]] = (KIND,)
    parts: ClassVar[Parts] = Parts(encoder=(WRAPPED,), projector=(), language=())
    embedding_module: ClassVar[str] = "embedding"

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Family:
        """The family, if the function that the configuration names may be called.

        Raises:
            ModelError: If the user has neither typed the function nor trusts the checkpoint.
        """
        if config:
            refuse_unless_allowed(config.get("function"))
        return cls()

    def image_processor(self, folder: Any, **options: Any) -> Any:
        """The function's preprocessing."""
        config = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        return Preprocessing(config["function"])

    def preprocessed(self, processor: Any, image: Any) -> Any:
        """Refuses: what a function does to a picture cannot be traced to its pixels.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "the preprocessing of a function of your own may do anything with a picture, so pixels "
            "cannot be traced to the network's inputs."
        )

    def checkpoint_keys(self, name: str) -> tuple[str, ...]:
        """The name in the network's own `state_dict`."""
        return (name.removeprefix(WRAPPED),)
