"""Attacks: one file each; each says whether what was unlearned can be brought back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from unsee.registry import Registry

if TYPE_CHECKING:
    from unsee.model import VLM
    from unsee.types import Sample

ATTACKS: Registry[type[Attack]] = Registry("attack", "unsee.attacks")


class Attack:
    """What all attacks have in common.

    Attributes:
        name: Its registered name.
        source: Where its definition comes from.
        access: "white_box" needs the weights, "black_box" only answers.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    access: ClassVar[Literal["black_box", "white_box"]]

    def curve(
        self, vlm: VLM, samples: Sequence[Sample], score: Callable[[VLM], Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """What `score` finds as the attack's effort grows; the model itself is left as it is.

        Args:
            vlm: The model under attack.
            samples: What the attacker may draw on.
            score: What is measured.
        """
        raise NotImplementedError
