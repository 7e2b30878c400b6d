"""Rules that find the option that an answer to a multiple-choice question chooses."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher

from unsee.metrics import normalize_answer

# Takes an answer and the options; returns the number of the chosen option, None for none.
LetterRule = Callable[[str, Sequence[str]], int | None]

# Without options, a letter may be any of A to Z.
_LETTERS = 26

# Letters are found between other scripts too ("答案是B"), but not inside words of Latin letters.
_START, _END = r"(?<![A-Za-z\u00c0-\u024f0-9_'])", r"(?![A-Za-z\u00c0-\u024f0-9_'])"
# "B", "(B)", "**B**."
_ALONE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
# "B: baker", "B) baker", "(b) baker"
_LEADING = re.compile(r"[\W_]*([A-Za-z])\s*[:.)\]*]")
# "The answer is B", "Answer: (B)", "I choose option B"; "option b" only where nothing follows the
# letter, since "the answer is a baker" states none.
_NAMED = re.compile(
    r"\b(?i:answer|option|choice|letter|choose|pick)\b(?i:\s+(?:is|would\s+be|option|letter))*"
    rf"\s*[:=]?\s*[(\[*\"']*(?:([A-Z]){_END}|([a-z])[)\]*\"'.!]*\s*$)"
)
# "(b)", "[B]", "<answer>B</answer>", "\\boxed{B}"
_ENCLOSED = re.compile(r"[(\[{>]\s*([A-Za-z])\s*[)\]}<]")
# "B is correct"
_CORRECT = re.compile(rf"{_START}([A-Z])\W+(?i:is\s+(?:the\s+)?(?:correct|right|answer|true))")
# "B, because", or "B baker" with a capital that is no word of its own.
_FIRST_WORD = re.compile(r"[\W_]*([A-Z](?=,)|[B-HJ-Z](?=\s))")
_CAPITAL = re.compile(rf"{_START}([A-Z]){_END}")
# "I don't think it is B" states no option.
_NEGATED = re.compile(r"(?i)\b(?:not|no|never|neither|nor|cannot)\b|n't\b")
# "I think it is B": a capital that is no English word.
_NO_WORD = re.compile(rf"{_START}([B-HJ-Z]){_END}")


def first_character(text: str, choices: Sequence[str]) -> int | None:
    """Returns the option of the first character, as MLLMU-Bench's script does.

    Source: MLLMU-Bench, arXiv 2410.22108, its evaluation script.

    Example:
        >>> first_character("banker", ("nurse", "pilot")), first_character("(B)", ("a", "b"))
        (1, None)
    """
    return _option(text.strip()[:1], choices)


def first_alphanumeric(text: str, choices: Sequence[str]) -> int | None:
    """Returns the option of the first ASCII letter or digit, as MMUnlearner's script does.

    Source: MMUnlearner, arXiv 2502.11051, its evaluation script for MLLMU-Bench.

    Example:
        >>> first_alphanumeric("(B)", ("nurse", "pilot"))
        1
    """
    return _option(re.sub(r"[^a-zA-Z0-9]", "", text)[:1], choices)


def exact_text(text: str, choices: Sequence[str]) -> int | None:
    """Returns the option whose text is the whole answer, as UMU-Bench's script does.

    Source: UMU-Bench, its evaluation script, on forget and retain sets.

    Example:
        >>> options = ("nurse", "pilot")
        >>> [exact_text(text, options) for text in (" pilot ", "Pilot", "B")]
        [1, None, None]
    """
    answer = text.strip()
    return choices.index(answer) if answer in choices else None


def closest_text(text: str, choices: Sequence[str]) -> int | None:
    """Returns the option whose text is most similar to the answer, as UMU-Bench's script does.

    Source: UMU-Bench, its evaluation script, on real people.

    Example:
        >>> closest_text("A pilots", ("nurse", "pilot"))
        1
    """
    answer = text.strip()
    ratios = [SequenceMatcher(None, answer, choice).ratio() for choice in choices]
    return ratios.index(max(ratios)) if ratios else None


def stated_option(text: str, choices: Sequence[str]) -> int | None:
    """Returns the one option that an answer states, by its letter or its text.

    A letter counts where it stands for an option, such as in "B", "(B)", "B: baker" or "The answer
    is B", and not as the first letter of a word. Otherwise the answer must contain the text of
    exactly one option, or else exactly one capital that is an option and no word. Full-width
    letters count as letters.

    Example:
        >>> options = ("nurse", "pilot")
        >>> [stated_option(t, options) for t in ("(B)", "The answer is B.", "banker", "a pilot")]
        [1, 1, None, 1]
    """
    text = unicodedata.normalize("NFKC", text)
    whole = normalize_answer(text)
    for number, choice in enumerate(choices):
        if len(whole) > 1 and whole == normalize_answer(choice):
            return number
    if match := _ALONE.fullmatch(text):
        # "O" among blood types is the text of an option, where no option has this letter.
        texts = [n for n, choice in enumerate(choices) if whole == normalize_answer(choice)]
        letter = _option(match[1], choices)
        return texts[0] if letter is None and len(texts) == 1 else letter
    stated = {n for n, choice in enumerate(choices) if contains_words(text, choice)}
    if 1 < len(choices) == len(stated) and all(len(choice) > 1 for choice in choices):
        # The list of options, repeated.
        return None
    if match := _LEADING.match(text):
        return _option(match[1], choices)
    match = _FIRST_WORD.match(text)
    if match and len(_options(_CAPITAL, text, choices)) == 1:
        return _option(match[1], choices)
    for pattern in (_NAMED, _ENCLOSED, _CORRECT):
        if len(options := _options(pattern, text, choices)) == 1:
            return options.pop()
    if not stated and not _NEGATED.search(text):
        letters = _options(_CAPITAL, text[1:], choices)
        stated = letters if letters == _options(_NO_WORD, text, choices) else set()
    return stated.pop() if len(stated) == 1 else None


def contains_words(text: str, words: str) -> bool:
    """Whether a text contains words as whole words, ignoring case.

    Example:
        >>> contains_words("This is ADA BERG.", "Ada Berg"), contains_words("banker", "bank")
        (True, False)
    """
    wanted = normalize_answer(words)
    if not wanted:
        return False
    # Scripts without spaces between words have no word boundaries to find.
    start = r"(?<!\w)" if wanted[0].isascii() else ""
    end = r"(?!\w)" if wanted[-1].isascii() else ""
    return re.search(start + re.escape(wanted) + end, normalize_answer(text)) is not None


def _options(pattern: re.Pattern[str], text: str, choices: Sequence[str]) -> set[int]:
    """Returns the numbers of the options whose letters a pattern finds in an answer."""
    letters = [next(filter(None, match.groups())) for match in pattern.finditer(text)]
    return {number for x in letters if (number := _option(x, choices)) is not None}


def _option(letter: str, choices: Sequence[str]) -> int | None:
    """Returns the number of the option with this letter; None if there is none."""
    number = ord(letter.upper()) - ord("A") if letter.isascii() and letter.isalpha() else -1
    return number if 0 <= number < (len(choices) or _LETTERS) else None


# By name: our own, and those that were published.
LETTER_RULES: Mapping[str, LetterRule] = {
    "stated": stated_option,
    "mllmu": first_character,
    "mmunlearner": first_alphanumeric,
    "umu": exact_text,
    "umu_closest": closest_text,
}
