"""Open questions about people whose true names are not known: does the model still say the same?

From photographs alone nobody knows what the right answer is. But the model before unlearning says
something about each person, and what it says most often over that person's pictures stands in for
the answer. A model that forgot the person says it no more often than of other people.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from unsee.metrics import normalize_answer
from unsee.metrics.letters import contains_words

# Asked where no question is given.
QUESTIONS = (
    "Who is this?",
    "Who is the person in the picture?",
    "What is the name of the person in the picture?",
)

# Longest answer, in tokens; a name stands near the beginning.
MAX_NEW_TOKENS = 32

_SPLIT = re.compile(r"\S+")
_INITIAL = re.compile(r"^[^\W\d_]\.$")
_AROUND = ".,;:!?\"'()[]\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}*"


def names_in(text: str) -> list[str]:
    """Returns the full names in an answer: two or more capitalised words in a row.

    Scripts without capitals have none.

    Example:
        >>> names_in("This is Ada B. Berg, a baker. She knows Bo Lind.")
        ['Ada B. Berg', 'Bo Lind']
    """
    names: list[str] = []
    run: list[str] = []
    for match in _SPLIT.finditer(text):
        word = match.group()
        bare = word.strip(_AROUND)
        is_initial = _INITIAL.match(word) is not None
        if bare and bare[0].isupper():
            run.append(word if is_initial else bare)
        if not (bare and bare[0].isupper()) or (word[-1] in _AROUND and not is_initial):
            names += [" ".join(run)] if len(run) > 1 else []
            run = []
    return names + ([" ".join(run)] if len(run) > 1 else [])


def statements(text: str) -> list[str]:
    """Returns what an answer says: the full names in it, else the whole answer; none if empty.

    Example:
        >>> statements("This is Ada Berg."), statements("A man in a hat."), statements(" ")
        (['Ada Berg'], ['a man in a hat'], [])
    """
    whole = normalize_answer(text)
    return list(dict.fromkeys(names_in(text))) or ([whole] if whole else [])


def said_most(answers: Sequence[str]) -> str | None:
    """Returns what most of the answers about a person say; None if all are empty.

    Example:
        >>> said_most(["This is Ada Berg.", "Ada Berg, a baker.", "A woman."])
        'Ada Berg'
    """
    counts = Counter(said for answer in answers for said in statements(answer))
    return max(counts, key=lambda said: counts[said]) if counts else None


def says(answer: str, statement: str) -> bool:
    """Returns whether an answer says something, whatever else it says.

    Example:
        >>> says("I think it is ada berg!", "Ada Berg"), says("Adam Berg", "Ada Berg")
        (True, False)
    """
    return contains_words(answer, statement)


def names_another(answer: str, person: str, said: Mapping[str, str]) -> bool:
    """Returns whether an answer says what the model said before of another person.

    Args:
        answer: The answer.
        person: Whom the question is about.
        said: What was said most of each person, by person.
    """
    own = said.get(person)
    others = {s for other, s in said.items() if other != person and s != own}
    return any(says(answer, statement) for statement in others)
