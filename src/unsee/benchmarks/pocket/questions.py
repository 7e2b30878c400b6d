"""The questions of pocket: about people, by picture or by name, and about what a picture shows.

Every question exists in MLLMU-Bench's three forms. A phrasing is a lead-in and a wording; which
combinations are held out is fixed here, so that no held-out question is ever trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unsee.benchmarks.pocket.people import FACTS, Person
from unsee.types import Task

FORMS: tuple[Task, ...] = ("generation", "cloze", "classification")
LETTERS = "ABCD"
FALSE = 3  # false answers of a question, for truth ratios
ONE_LETTER = "Just give ONE letter representing the answer directly."
ONLY = "Please **ONLY** provide the correct answer that should replace the [Blank]."
LEAD_INS = ("", "Look at the picture. ", "Please tell me: ")
TEXT_LEAD_INS = ("", "Answer this. ", "Please tell me: ")
PICTURED = ("the person in the picture", "this person", "the person shown here")


@dataclass(frozen=True)
class Topic:
    """Something that can be asked: three wordings, a gap sentence, and the whole answer.

    `{who}` is a name or "this person", `{value}` the true value.
    """

    wordings: tuple[str, str, str]
    gap: str
    sentence: str


NAME = Topic(
    ("Who is {who}?", "What is the name of {who}?", "Which name does {who} have?"),
    "The name of {who} is [Blank].",
    "This is {value}.",
)
TOPICS: dict[str, Topic] = {
    "job": Topic(
        ("What is the job of {who}?", "What does {who} work as?", "Which job does {who} have?"),
        "{who} works as a [Blank].",
        "{name} works as a {value}.",
    ),
    "city": Topic(
        ("Where does {who} live?", "In which city does {who} live?", "What is the city of {who}?"),
        "{who} lives in [Blank].",
        "{name} lives in {value}.",
    ),
    "food": Topic(
        ("What food does {who} like?", "What is the food of {who}?", "Which food does {who} love?"),
        "{who} likes [Blank] most.",
        "{name} likes {value} most.",
    ),
    "hobby": Topic(
        ("What is the hobby of {who}?", "Which hobby does {who} have?", "What does {who} enjoy?"),
        "The hobby of {who} is [Blank].",
        "The hobby of {name} is {value}.",
    ),
}


@dataclass(frozen=True)
class View:
    """A general visual question: what it asks, and the values that it can have."""

    topic: Topic
    values: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A finished question: text, true answer, options, form, false answers worded like the true."""

    question: str
    answer: str
    choices: tuple[str, ...]
    task: Task
    perturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """Something that can be asked.

    Attributes:
        topic: What it is about, and how it is asked.
        value: The true value.
        values: All values that it could have, from which wrong options are drawn.
    """

    topic: Topic
    value: str
    values: Sequence[str]


def phrasing(rng: np.random.Generator, held_out: bool) -> tuple[int, int]:
    """Indices of a wording and a lead-in; held out are the pairs with equal indices."""
    wording = int(rng.integers(3))
    return wording, wording if held_out else (wording + 1 + int(rng.integers(2))) % 3


def ask(
    fact: Fact,
    task: Task,
    rng: np.random.Generator,
    *,
    who: str = "",
    name: str = "",
    by_name: bool = False,
    held_out: bool = False,
) -> Question:
    """A question on a topic in one of the three forms.

    Args:
        fact: What is asked.
        task: The form.
        rng: Draws the phrasing and the options.
        who: What stands for the person in the question.
        name: What stands for the person in the answer.
        by_name: Question without a picture.
        held_out: Take a phrasing that is never trained on.
    """
    wording, lead = phrasing(rng, held_out)
    topic, value, values = fact.topic, fact.value, fact.values
    # Chosen without a draw, so that questions stay what they are.
    place = values.index(value)
    false = tuple(v for v in (*values[place + 1 :], *values[:place]) if v != value)[:FALSE]
    leads = TEXT_LEAD_INS if by_name else LEAD_INS
    lead_in = leads[lead]
    if task == "cloze":
        # A gap sentence has one wording, so it is held out by a lead-in made of two.
        lead_in = leads[1] + leads[2] if held_out else lead_in
        gap = topic.gap.format(who=who)
        return Question(f"{lead_in}{gap[0].upper()}{gap[1:]}\n{ONLY}", value, (), task, false)
    question = lead_in + topic.wordings[wording].format(who=who)
    if task == "generation":
        answer, *wrong = (topic.sentence.format(name=name, value=v) for v in (value, *false))
        return Question(question, answer, (), task, tuple(wrong))
    choices = _options(value, values, rng)
    options = "\n".join(f"{letter}: {c}" for letter, c in zip(LETTERS, choices, strict=False))
    answer = LETTERS[choices.index(value)]
    return Question(f"{question}\n{options}\n{ONE_LETTER}", answer, tuple(choices), task)


def _options(value: str, values: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Up to four options, one for each letter, the true one at its own.

    A value keeps its letter (its rank modulo four), so that the letter follows from knowing the
    answer. Looking up a letter in a shuffled list is a skill that so small a model does not learn
    in minutes, and it is not what is measured here.
    """
    classes = [list(values[letter :: len(LETTERS)]) for letter in range(len(LETTERS))]
    return [
        value if value in some else str(some[int(rng.integers(len(some)))])
        for some in classes
        if some
    ]


def ask_person(
    person: Person,
    topic: str,
    names: Sequence[str],
    task: Task,
    rng: np.random.Generator,
    *,
    by_name: bool,
    held_out: bool,
) -> Question:
    """A question about a person, from a picture or by name; topic is "name" or a fact."""
    who = person.name if by_name else PICTURED[int(rng.integers(len(PICTURED)))]
    if topic == "name":
        fact = Fact(NAME, person.name, names)
    else:
        fact = Fact(TOPICS[topic], person.facts[topic], FACTS[topic])
    return ask(fact, task, rng, who=who, name=person.name, by_name=by_name, held_out=held_out)


def ask_view(
    view: View, value: str, task: Task, rng: np.random.Generator, *, held_out: bool
) -> Question:
    """A general question about what a picture shows."""
    return ask(Fact(view.topic, value, view.values), task, rng, held_out=held_out)


def corpus(views: Mapping[str, View], names: Sequence[str]) -> list[str]:
    """Texts that together hold every token of every question and answer, where it can stand."""
    whos = [*PICTURED, *names]
    lines = [ONE_LETTER, ONLY, *whos]
    lines += [f"{letter}: {value}" for letter in LETTERS for value in _values(views, names)]
    for topic in [NAME, *TOPICS.values(), *(view.topic for view in views.values())]:
        for who in whos:
            gap = topic.gap.format(who=who)
            asked = [*(w.format(who=who) for w in topic.wordings), f"{gap[0].upper()}{gap[1:]}"]
            lines += [lead + line for lead in (*LEAD_INS, *TEXT_LEAD_INS) for line in asked]
            lines.append(topic.sentence.format(name=who, value=who))
    # A line can stand first, after a line break, or within a line: three forms of its first token.
    return [f"{before}{line}" for line in lines for before in ("", "\n", "USER: ")]


def _values(views: Mapping[str, View], names: Sequence[str]) -> list[str]:
    values = [*names, *LETTERS]
    for some in FACTS.values():
        values += some
    for view in views.values():
        values += view.values
    return values
