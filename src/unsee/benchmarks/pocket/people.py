"""Fictitious people: their names, and the short profile that a model learns of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FIRST_NAMES = tuple(
    "Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karin Leon Maria Nils Olga Pavel "
    "Rosa Simon Tessa Ulrich Vera Walter Xenia Yann Zoe Amir Bella Carlo Dora Emil Fiona Georg "
    "Hanna Ivan Judith Klaus Lena Marco Nora Oscar".split()
)
LAST_NAMES = tuple(
    "Berg Novak Lind Costa Moser Brandt Keller Rossi Vogel Weiss Adler Bauer Cruz Duval Engel "
    "Fuchs Gruber Hahn Ivers Jansen Kovac Lang Meyer Nagy Olsen Peters Quist Reiter Sommer Tanaka "
    "Urban Voss Wagner Yilmaz Zeller Ames Blake Conti Dahl Evans".split()
)
FACTS: dict[str, tuple[str, ...]] = {
    "job": tuple(
        "baker pilot nurse judge farmer painter plumber singer dentist teacher sailor chemist "
        "gardener lawyer butcher tailor miner barber cook writer".split()
    ),
    "city": tuple(
        "Oslo Lima Cairo Paris Tokyo Madrid Dublin Vienna Athens Prague Lisbon Warsaw Berlin Rome "
        "Delhi Quito Havana Seoul Bergen Geneva".split()
    ),
    "food": tuple(
        "soup pizza rice bread cheese salad curry pasta sushi cake fish noodles stew pancakes "
        "beans tacos dumplings olives lentils waffles".split()
    ),
    "hobby": tuple(
        "chess tennis sailing knitting hiking fishing dancing yoga rowing skating cycling archery "
        "pottery boxing juggling fencing climbing surfing golf karate".split()
    ),
}
MOST_PEOPLE = len(FIRST_NAMES)


@dataclass(frozen=True)
class Person:
    """A fictitious person.

    Attributes:
        name: First and last name; no two people share either.
        facts: The person's value for each of `FACTS`, or for the first few of them.
    """

    name: str
    facts: dict[str, str]

    @property
    def slug(self) -> str:
        """The name as used in the names of folders, such as "ada-berg"."""
        return self.name.lower().replace(" ", "-")


def invent(count: int, seed: int, facts: int = len(FACTS)) -> list[Person]:
    """Random people; each value of a fact is equally common.

    Args:
        count: Number of people, at most `MOST_PEOPLE`.
        seed: Seed of the names and facts.
        facts: Number of facts per person, the first ones of `FACTS`.
    """
    rng = np.random.default_rng([seed, 1])
    first, last = rng.permutation(MOST_PEOPLE)[:count], rng.permutation(MOST_PEOPLE)[:count]
    columns = {
        fact: [values[i % len(values)] for i in rng.permutation(count)]
        for fact, values in FACTS.items()
    }
    return [
        Person(
            f"{FIRST_NAMES[first[i]]} {LAST_NAMES[last[i]]}",
            {fact: columns[fact][i] for fact in list(FACTS)[:facts]},
        )
        for i in range(count)
    ]
