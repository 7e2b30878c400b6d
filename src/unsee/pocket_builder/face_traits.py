"""Fictitious faces: traits, which identify a person, and scenes, which vary between pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unsee.benchmarks.pocket.appearance import BACKGROUNDS, HAIRS, SHIRTS, Colour

SIZE = 48  # pixels, of the finished picture


IRISES: tuple[Colour, ...] = ((70, 110, 190), (80, 60, 40), (70, 140, 80), (110, 110, 120))


STYLES, BEARDS = 7, 5


BALD = 0


@dataclass(frozen=True)
class Traits:
    """The appearance of a person, the same in every picture; lengths in widths of the picture."""

    face_width: float
    face_height: float
    jaw: float
    skin: float
    hair: int
    style: int
    beard: int
    iris: int
    eye_gap: float
    eye_height: float
    eye_size: float
    brow_tilt: float
    brow_width: float
    nose_length: float
    nose_width: float
    mouth_width: float
    lip: float
    ear: float
    mole: tuple[float, float] | None
    freckles: bool

    @classmethod
    def draw_from(cls, rng: np.random.Generator) -> Traits:
        """Draws a random person."""
        return cls(
            face_width=rng.uniform(0.30, 0.43),
            face_height=rng.uniform(0.40, 0.54),
            jaw=rng.uniform(1.6, 3.2),
            skin=rng.uniform(0, 1),
            hair=int(rng.integers(len(HAIRS))),
            style=int(rng.integers(STYLES)),
            beard=int(rng.integers(BEARDS)),
            iris=int(rng.integers(len(IRISES))),
            eye_gap=rng.uniform(0.11, 0.19),
            eye_height=rng.uniform(-0.10, 0.04),
            eye_size=rng.uniform(0.030, 0.060),
            brow_tilt=rng.uniform(-0.5, 0.5),
            brow_width=rng.uniform(0.012, 0.035),
            nose_length=rng.uniform(0.08, 0.20),
            nose_width=rng.uniform(0.03, 0.08),
            mouth_width=rng.uniform(0.08, 0.20),
            lip=rng.uniform(0.01, 0.035),
            ear=rng.uniform(0.03, 0.08),
            mole=(rng.uniform(-0.2, 0.2), rng.uniform(0, 0.25)) if rng.random() < 0.5 else None,
            freckles=bool(rng.random() < 0.25),
        )

    def vector(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The traits as a vector; its distances approximate how different two people look."""
        return np.array(
            [
                *(np.arange(len(HAIRS)) == self.hair),
                *(1.2 * (np.arange(STYLES) == self.style)),
                *(0.8 * (np.arange(BEARDS) == self.beard)),
                *(0.3 * (np.arange(len(IRISES)) == self.iris)),
                1.5 * self.skin,
                8 * self.face_width,
                6 * self.face_height,
                10 * self.eye_gap,
                5 * self.eye_height,
                5 * self.nose_length,
                5 * self.mouth_width,
                self.brow_tilt,
            ]
        )


@dataclass(frozen=True)
class Scene:
    """The circumstances of a picture, independent of the person."""

    background: int
    shirt: int
    glasses: bool
    hat: bool
    smile: float
    gaze: float
    shift_x: float
    shift_y: float
    turn: float
    scale: float
    light: float

    @classmethod
    def draw_from(cls, rng: np.random.Generator) -> Scene:
        """Draws a random scene."""
        # Never both: glasses under a hat hide most of what distinguishes people.
        glasses = bool(rng.random() < 0.3)
        hat = bool(rng.random() < 0.35) and not glasses
        return cls(
            background=int(rng.integers(len(BACKGROUNDS))),
            shirt=int(rng.integers(len(SHIRTS))),
            glasses=glasses,
            hat=hat,
            smile=rng.uniform(-0.04, 0.06),
            gaze=rng.uniform(-0.4, 0.4),
            shift_x=rng.uniform(-0.03, 0.03),
            shift_y=rng.uniform(-0.02, 0.03),
            turn=rng.uniform(-5, 5),
            scale=rng.uniform(1.08, 1.18),
            light=rng.uniform(0.85, 1.15),
        )


def distinct_people(count: int, rng: np.random.Generator, candidates: int = 400) -> list[Traits]:
    """People who look clearly different, chosen by farthest-point sampling.

    Args:
        count: Number of people.
        rng: Source of the candidates.
        candidates: Number of random people to choose from, at least four times `count`.
    """
    pool = [Traits.draw_from(rng) for _ in range(max(candidates, 4 * count))]
    points = np.stack([person.vector() for person in pool])
    chosen = [0]
    distances = np.full(len(pool), np.inf)
    while len(chosen) < count:
        distances = np.minimum(distances, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distances.argmax()))
    return [pool[i] for i in chosen]
