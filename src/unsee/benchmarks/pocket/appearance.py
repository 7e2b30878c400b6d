"""Colours of what pocket's pictures show: backgrounds, shirts and hair."""

from __future__ import annotations

Colour = tuple[int, int, int]


COLOURS: dict[str, Colour] = {
    "red": (205, 55, 50),
    "blue": (60, 95, 200),
    "green": (70, 160, 80),
    "yellow": (235, 205, 70),
    "white": (240, 240, 240),
    "black": (40, 40, 45),
    "purple": (140, 75, 170),
    "orange": (235, 140, 50),
}


BACKGROUNDS = ("red", "blue", "green", "yellow", "white", "purple")


SHIRTS = tuple(COLOURS)


HAIR: dict[str, Colour] = {
    "black": (35, 28, 28),
    "brown": (105, 65, 35),
    "blond": (225, 190, 110),
    "red": (180, 75, 35),
    "grey": (165, 165, 170),
    "white": (238, 236, 230),
}


HAIRS = tuple(HAIR)
