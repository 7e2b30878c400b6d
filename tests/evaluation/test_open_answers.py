"""What answers to open questions say, in words of several languages."""

from __future__ import annotations

import pytest

from unsee.evaluation.open_answers import names_another, names_in, said_most, says, statements


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("This is Ada Berg.", ["Ada Berg"]),
        ("The person is Ada B. Berg, a baker from Oslo.", ["Ada B. Berg"]),
        ("Das ist Jürgen Groß-Meyer.", ["Jürgen Groß-Meyer"]),
        ("Ada Berg. Bo Lind", ["Ada Berg", "Bo Lind"]),
        ("**Ada Berg** and Bo", ["Ada Berg"]),
        ("a man in a blue hat", []),
        ("Это Анна Берг.", ["Это Анна Берг"]),
        ("这是安娜。", []),
        ("", []),
        ("A. . .", []),
    ],
)
def test_names_in_finds_full_names(text: str, names: list[str]) -> None:
    assert names_in(text) == names


def test_said_most_prefers_what_most_answers_say() -> None:
    assert said_most(["This is Ada Berg.", "A woman.", "It is Ada Berg, I think."]) == "Ada Berg"
    assert said_most(["A woman.", "a woman", "This is Ada Berg."]) == "a woman"
    assert said_most(["", "  "]) is None
    # A script without capitals: the whole answer counts.
    assert said_most(["这是安娜。", "这是安娜", "一个女人"]) == "这是安娜"


def test_says_finds_the_statement_as_whole_words() -> None:
    assert says("I think this is ADA BERG!", "Ada Berg")
    assert not says("This is Adam Bergson.", "Ada Berg")
    assert says("这是安娜。", "安娜")


def test_names_another_ignores_equal_statements() -> None:
    said = {"p1": "Ada Berg", "p2": "Bo Lind", "p3": "i cannot say"}
    assert names_another("This is Bo Lind.", "p1", said)
    assert not names_another("This is Ada Berg.", "p1", said)
    refusals = dict.fromkeys(said, "i cannot say")
    assert not names_another("I cannot say.", "p1", refusals)
    assert statements("I cannot say.") == ["i cannot say"]
