"""Random recipes, fields and arguments: read, or refused in a short message; never another error.

A short run by default; `UNSEE_FUZZ=2000 pytest tests/fuzz/test_recipes.py` makes a long one.
"""

from __future__ import annotations

import os
import random
import re
import string
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from support.fuzz import cases, check_refusal, command, snapshot
from unsee.attacks import ATTACKS
from unsee.errors import UnseeError
from unsee.methods import METHODS
from unsee.recipes.catalog import SHIPPED
from unsee.recipes.evaluate import EvaluationOptions, make_evaluation
from unsee.recipes.finetune import Finetune, make_finetune
from unsee.recipes.parsing import format_value, parse_overrides
from unsee.recipes.unlearn import RunOptions, make_recipe
from unsee.training.settings import TrainingSettings

CASES = cases(6)

BOMB = "{a: &a [x,x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b]}"

# Values as they may stand in YAML.
SCALARS = [
    "null", "~", "", "true", "True", "false", "yes", "no", "on", "off", "y", "0", "1", "-1", "5",
    "1.5", "1e-4", "1e400", "-1e400", "9" * 30, "9" * 5000, "0." + "3" * 5000, "010", "0o10",
    "0x1F", "1_000", "1:30", "190:20:30", "2001-01-01", "2001-13-45", "2001-01-01T00:00:00Z",
    ".inf", "-.inf", ".nan", "nan", "inf", "None", "none", "!!int abc",
    "!!python/object/apply:os.system [x]", "!x 5", "!!binary AAAA", "!!set {a}",
    "!!timestamp 2001-01-01", "&a 5", "&a [*a]", "*b", "<<", "=", "@x", "`x`", "%x", "|\n  x",
    ">-\n  x", "'x'", "''", '"\\u0000"', '"\\ud800"', '"\\UFFFFFFFF"', '"\\e[2J"',
    '"\\x1b]0;x\\x07"', "x", "X" * 100, "x" * 5000, "x" * 70_000, "ä", "\u202e", "\U0001f600",
    "/", ".", "..", "~", "~nobody/x", "/dev/zero", "/dev/null", "a/" * 3000, "a" * 300, "C:\\x",
    "http://x", "pocket", "pocket:", "pocket:forget", "pocket:target", "pocket:none",
    "mllmu:forget@/", "x:y", "pocket:forget?shots=x", "pocket@/dev/zero", "auto", "cpu", "all",
    "[all]", "projector", "vkd", "[]", "[1]", "[x, 1, null]", "[[[]]]", "[" * 40,
    "[" * 2000 + "]" * 2000, "{}", "{a: 1}", "{1: 2}", "{null: 1}", "{[a]: 1}", "{a: 1, a: 2}",
    "{a: {b: {c: 1}}}", "{a: ", "- 1", BOMB, "a: b", "a #b", "#a", "--- 5", "5\n---\n6", "...",
    "? x", "\t5", "5 # five",
]  # fmt: skip

# Values as Python code may give them.
OBJECTS: list[Any] = [
    None, True, False, 0, 1, -1, 2**70, 1.5, float("nan"), float("inf"), "", "x", "None", "\ud800",
    "\0", "\x1b[2J", "x" * 100_000, b"x", (), (1,), [], [None], [[1]], {}, {"a": 1}, {1: 2},
    {None: []}, set(), object(), int, len, Path("x"), Path("/dev/zero"), 1j, range(3), "1", "true",
    {"attack": 5}, ["relearn", 5], {"share": "x"}, ["relearn?share=x"], {"steps": 10}, ("a", "b"),
]  # fmt: skip

OPTIONS = [f.name for f in fields(RunOptions)]
KEYS = [*OPTIONS, "method", "set", "attacks", "ratio", "sett", "", "\x1b[2J", "1", "x" * 3000]
SETTINGS = [f.name for f in fields(TrainingSettings)]
ATTACK_FIELDS = sorted({f.name for name in ATTACKS.names() for f in fields(ATTACKS.get(name))})
PIECES = ["?", "&", "+", "=", "relearn", "quantize", "all", "share", "bits", *ATTACK_FIELDS]


def method_fields(rng: random.Random) -> tuple[str, list[str]]:
    """A method and the names of its fields, settings and presets."""
    name = rng.choice(METHODS.names())
    kind = METHODS.get(name)
    return name, [*(f.name for f in fields(kind)), *SETTINGS, *kind.presets, "nothing"]


def attack_text(rng: random.Random) -> str:
    """An attack as it may be typed, or nearly so."""
    if rng.random() < 0.5:
        field = rng.choice(ATTACK_FIELDS)
        return f"{rng.choice(ATTACKS.names())}?{field}={rng.choice(SCALARS)}"
    return "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))


def random_recipe(rng: random.Random) -> str:
    """The text of a recipe with odd keys and values."""
    method, names = method_fields(rng)
    lines = [f"method: {method}"] if rng.random() < 0.7 else []
    for _ in range(rng.randint(1, 3)):
        action = rng.randrange(4)
        if action == 0:
            lines.append(f"{rng.choice(KEYS)}: {rng.choice(SCALARS)}")
        elif action == 1:
            lines.append("set:")
            lines += [
                f"  {rng.choice(names)}: {rng.choice(SCALARS)}" for _ in range(rng.randint(1, 3))
            ]
        elif action == 2:
            lines += ["attacks:", f"- {attack_text(rng)}"]
        else:
            lines.append(f"{rng.choice(OPTIONS)}: {rng.choice(SCALARS)}")
    return "\n".join(lines) + "\n"


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content with some bytes changed, removed, repeated or inserted."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(4)
        if action == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif action == 1:
            del data[at : at + rng.randint(1, 20)]
        elif action == 2:
            data[at:at] = rng.choice([b"\0", b"\xff", b"\xef\xbb\xbf", b"\r", b"\t", b"- ", b": "])
        else:
            data[at:at] = data[max(0, at - 40) : at]
    return bytes(data)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The file of a recipe, in a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "recipe.yaml"


def check_file(recipe: Path, *words: str) -> None:
    """A dry run reads the recipe or refuses it by the name of a field, and writes nothing."""
    before = snapshot(recipe.parent)
    code, message = command(words[0], recipe, *words[1:])
    text = recipe.read_text("utf-8", errors="replace") + " ".join(words[1:])
    named = re.findall(r"[A-Za-z_]{3,40}|\b\w+(?=[:=])", re.sub(r"x{20,}", "x" * 20, text))
    # Values without a word in them, such as "=" and dates, are quoted.
    named += [repr(piece) for word in words[1:] for piece in (word, *re.split("[=?&+]", word))]
    check_refusal(code, message, "recipe", *named)
    assert snapshot(recipe.parent) == before


def test_run_random_recipes(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    rng = random.Random(1)
    for _ in range(CASES):
        text = random_recipe(rng)
        recipe.write_bytes(text.encode("utf-8", "surrogatepass"))
        check_file(recipe, "run", "--dry-run")


@pytest.mark.parametrize("word", ["run", "finetune"])
def test_commands_damaged_recipes(recipe: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    rng = random.Random(word)
    shipped = [
        p for p in sorted(SHIPPED.glob("*.yaml")) if p.stem.startswith(word) == (word != "run")
    ]
    for _ in range(CASES):
        recipe.write_bytes(damaged(rng, rng.choice(shipped).read_bytes()))
        check_file(recipe, word, "--dry-run")


def test_run_random_pairs(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    rng = random.Random(2)
    for _ in range(CASES):
        method, names = method_fields(rng)
        recipe.write_text(f"method: {method}\n")
        pairs = [
            f"{rng.choice([*names, *KEYS])}={rng.choice(SCALARS)}" for _ in range(rng.randint(1, 3))
        ]
        # A word that begins with "-" would be an option.
        check_file(recipe, "run", "--dry-run", "--", *(p.replace("\0", "") for p in pairs))


def test_ablate_random_variants(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(recipe.parent)
    rng = random.Random(3)
    for _ in range(CASES):
        _, names = method_fields(rng)
        lines = [
            f"{rng.choice(SCALARS)}: {{{rng.choice(names)}: {rng.choice(SCALARS)}}}"
            for _ in range(rng.randint(1, 3))
        ]
        recipe.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        code, message = command("ablate", "vkd", "--variants", recipe, "--only", "no such row")
        check_refusal(code, message, "variants", "no such row")
        assert code == 2


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "link", "none", "large", "name"])
def test_run_odd_files(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "link":
        path.symlink_to(path)
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "name":
        path = Path("x" * 3000)
    for words in (["run", path, "--dry-run"], ["finetune", path, "--dry-run"], ["run", path]):
        code, message = command(*words)
        assert code == 2
        check_refusal(code, message, path.name[:100])
    code, message = command("ablate", "vkd", "--variants", path, "--only", "default")
    assert code == 2
    check_refusal(code, message, path.name[:100])


def test_make_recipe_random_objects() -> None:
    rng = random.Random(4)
    for _ in range(CASES * 5):
        method, names = method_fields(rng)
        known = rng.choice(
            [KEYS, [f.name for f in fields(Finetune)], [f.name for f in fields(EvaluationOptions)]]
        )
        content: dict[Any, Any] = {"method": method} if rng.random() < 0.5 else {}
        content |= {
            rng.choice([*known, 5, None]): rng.choice(OBJECTS) for _ in range(rng.randint(1, 3))
        }
        given = {rng.choice(names): rng.choice(OBJECTS) for _ in range(rng.randint(0, 3))}
        for make in (
            lambda: make_recipe(content, given),  # noqa: B023
            lambda: make_recipe({"set": given, **content}),  # noqa: B023
            lambda: make_finetune({"benchmark": "pocket", **content}),  # noqa: B023
            lambda: make_evaluation({"model": "x", **content}),  # noqa: B023
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", FutureWarning)
                    made = make()
            except UnseeError as error:
                message = str(error)
            else:
                message = ""
                assert made.text("unsee run x").encode("utf-8", "surrogatepass")
            assert len(message) < 6000


def test_parse_overrides_reads_what_format_value_writes() -> None:
    rng = random.Random(5)
    letters = [*string.printable.replace("\x0b", "").replace("\x0c", ""), "ä", "\u202e", "\x85"]
    for _ in range(CASES * 5):
        texts = [
            "".join(rng.choice(letters) for _ in range(rng.randint(0, 8))),
            rng.choice(SCALARS),
        ]
        number = rng.choice(
            [
                rng.randint(-(2**63) + 1, 2**63 - 1),
                rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300),
            ]
        )
        for value in (*texts, number, True, None, [*texts, number], {"a": texts, "b": {}}):
            if "\0" in str(value) or "\ud800" in str(value):
                continue
            assert parse_overrides([f"x={format_value(value)}"]) == {"x": value}
