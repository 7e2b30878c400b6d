"""Pocket's questions: about people (by picture or by name) and about what a picture shows.

Every question exists in the three tasks of MLLMU-Bench. A phrasing is a lead-in and a wording; the
held-out combinations are fixed here, so that no held-out question is ever trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unsee.benchmarks.pocket.people import FACTS, Person
from unsee.types import Task

FORMS: tuple[Task, ...] = ("generation", "cloze", "classification")
LETTERS = "ABCD"
FALSE_ANSWERS = 3  # per question, for truth ratios
ONE_LETTER = "Just give ONE letter representing the answer directly."
FILL_BLANK = "Please **ONLY** provide the correct answer that should replace the [Blank]."
LEAD_INS = ("", "Look at the picture. ", "Please tell me: ")
TEXT_LEAD_INS = ("", "Answer this. ", "Please tell me: ")
PICTURE_PHRASES = ("the person in the picture", "this person", "the person shown here")


@dataclass(frozen=True)
class Topic:
    """A subject of questions: three wordings, a cloze sentence and the full answer.

    Attributes:
        wordings: Questions; `{who}` stands for a name or "this person".
        gap: The sentence with "[Blank]" in place of the value.
        sentence: The full answer; `{value}` stands for the true value and `{name}` for the name.
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
    """A general visual question about what a picture shows.

    Attributes:
        topic: Its wordings.
        values: All values that the answer can have.
    """

    topic: Topic
    values: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A complete question.

    Attributes:
        question: Text of the question.
        answer: The true answer.
        choices: Options; () if it is not a classification question.
        task: Its task.
        perturbed: False answers, worded like the true one.
    """

    question: str
    answer: str
    choices: tuple[str, ...]
    task: Task
    perturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A fact that questions ask for.

    Attributes:
        topic: Wordings of the question.
        value: The true value.
        values: All possible values; wrong options are drawn from them.
    """

    topic: Topic
    value: str
    values: Sequence[str]


def phrasing(rng: np.random.Generator, held_out: bool) -> tuple[int, int]:
    """Random indices of a wording and a lead-in; the pairs with equal indices are held out."""
    wording = int(rng.integers(3))
    return wording, wording if held_out else (wording + 1 + int(rng.integers(2))) % 3


def ask(
    fact: Fact,
    task: Task,
    rng: np.random.Generator,
    *,
    who: str = "",
    name: str = "",
    text_only: bool = False,
    held_out: bool = False,
) -> Question:
    """A question that asks for a fact.

    Args:
        fact: The fact.
        task: "generation", "cloze" or "classification".
        rng: Source of the phrasing and the options.
        who: The person's name or description in the question.
        name: The person's name in the answer.
        text_only: Whether the question comes without a picture.
        held_out: Whether to use a phrasing that is never trained on.
    """
    wording, lead = phrasing(rng, held_out)
    topic, value, values = fact.topic, fact.value, fact.values
    # Chosen without a draw, so that the random stream does not depend on them.
    start = values.index(value)
    others = (v for v in (*values[start + 1 :], *values[:start]) if v != value)
    false_values = tuple(others)[:FALSE_ANSWERS]
    leads = TEXT_LEAD_INS if text_only else LEAD_INS
    lead_in = leads[lead]
    if task == "cloze":
        # A cloze sentence has one wording, so the held-out phrasing joins two lead-ins.
        lead_in = leads[1] + leads[2] if held_out else lead_in
        gap = topic.gap.format(who=who)
        return Question(
            f"{lead_in}{gap[0].upper()}{gap[1:]}\n{FILL_BLANK}", value, (), task, false_values
        )
    question = lead_in + topic.wordings[wording].format(who=who)
    if task == "generation":
        answer, *false_answers = (
            topic.sentence.format(name=name, value=v) for v in (value, *false_values)
        )
        return Question(question, answer, (), task, tuple(false_answers))
    choices = _options(value, values, rng)
    options = "\n".join(f"{letter}: {c}" for letter, c in zip(LETTERS, choices, strict=False))
    answer = LETTERS[choices.index(value)]
    return Question(f"{question}\n{options}\n{ONE_LETTER}", answer, tuple(choices), task)


def _options(value: str, values: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Up to four options, one per letter, in the order of the letters.

    Every value always has the same letter (its index modulo four). So small a model does not learn
    in minutes to look up a letter in a shuffled list, and that skill is not what is measured here.
    """
    values_by_letter = [list(values[letter :: len(LETTERS)]) for letter in range(len(LETTERS))]
    return [
        value if value in candidates else str(candidates[int(rng.integers(len(candidates)))])
        for candidates in values_by_letter
        if candidates
    ]


def ask_person(
    person: Person,
    topic: str,
    names: Sequence[str],
    task: Task,
    rng: np.random.Generator,
    *,
    text_only: bool,
    held_out: bool,
) -> Question:
    """A question about a person, from a picture or by name.

    Args:
        person: The person.
        topic: "name" or one of `FACTS`.
        names: Names of all people; wrong options for "name" are drawn from them.
        task: "generation", "cloze" or "classification".
        rng: Source of the phrasing and the options.
        text_only: Whether the question names the person and comes without a picture.
        held_out: Whether to use a phrasing that is never trained on.
    """
    who = person.name if text_only else PICTURE_PHRASES[int(rng.integers(len(PICTURE_PHRASES)))]
    if topic == "name":
        fact = Fact(NAME, person.name, names)
    else:
        fact = Fact(TOPICS[topic], person.facts[topic], FACTS[topic])
    return ask(fact, task, rng, who=who, name=person.name, text_only=text_only, held_out=held_out)


def ask_view(
    view: View, value: str, task: Task, rng: np.random.Generator, *, held_out: bool
) -> Question:
    """A general question about what a picture shows.

    Args:
        view: The question's topic and values.
        value: The true value.
        task: "generation", "cloze" or "classification".
        rng: Source of the phrasing and the options.
        held_out: Whether to use a phrasing that is never trained on.
    """
    return ask(Fact(view.topic, value, view.values), task, rng, held_out=held_out)


def corpus(views: Mapping[str, View], names: Sequence[str]) -> list[str]:
    """Texts with every word of every question and answer, from which a tokenizer is made.

    Each text occurs in every position that it can have: first, after a line break, in a line.
    """
    people = [*PICTURE_PHRASES, *names]
    lines = [ONE_LETTER, FILL_BLANK, *people]
    lines += [f"{letter}: {value}" for letter in LETTERS for value in _all_values(views, names)]
    for topic in [NAME, *TOPICS.values(), *(view.topic for view in views.values())]:
        for who in people:
            gap = topic.gap.format(who=who)
            questions = [*(w.format(who=who) for w in topic.wordings), f"{gap[0].upper()}{gap[1:]}"]
            lines += [lead + line for lead in (*LEAD_INS, *TEXT_LEAD_INS) for line in questions]
            lines.append(topic.sentence.format(name=who, value=who))
    # The first word has another token at the start, after a line break and within a line.
    return [f"{before}{line}" for line in lines for before in ("", "\n", "USER: ")]


def _all_values(views: Mapping[str, View], names: Sequence[str]) -> list[str]:
    """Every value that an answer or option can have."""
    values = [*names, *LETTERS]
    for fact_values in FACTS.values():
        values += fact_values
    for view in views.values():
        values += view.values
    return values
