"""Attacks: one file each; each says whether what was unlearned can be brought back."""

from __future__ import annotations

from typing import ClassVar, Literal

from unsee.registry import Registry

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
