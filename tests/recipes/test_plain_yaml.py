"""YAML of plain values: what is read, as what, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from unsee.errors import ConfigError
from unsee.recipes.parsing import parse_overrides, read_yaml
from unsee.recipes.plain_yaml import MAX_BYTES, MAX_INTEGER, dump, dump_inline, parse, read_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None), ("~", None), ("", None), ("true", True), ("False", False), ("3", 3),
        ("-7", -7), ("0", 0), ("1e-4", 1e-4), ("1.0e-4", 1e-4), (".5", 0.5), ("5.", 5.0),
        ("+1e3", 1000.0), (str(MAX_INTEGER), MAX_INTEGER), ("'3'", "3"), ("[1, x]", [1, "x"]),
        ("{a: {b: [null]}}", {"a": {"b": [None]}}), ("{1: 2}", {"1": 2}),
        ("{null: 1}", {"null": 1}),
        # Other than in YAML 1.1:
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("010", "010"), ("0o10", "0o10"),
        ("0x1F", "0x1F"), ("1_000", "1_000"), ("1:30", "1:30"), ("2001-01-01", "2001-01-01"),
        ("2001-13-45", "2001-13-45"), ("None", "None"),
    ],
)  # fmt: skip
def test_parse_reads_what_json_could_hold(text: str, value: Any) -> None:
    result = parse(text, "x")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is given twice"),
        ("{a: {b: 1, 'b': 2}}", "the key 'b' is given twice"),
        ("a: !!int abc", "tags"),
        ("!!python/object/apply:os.system [x]", "tags"),
        ("{!!str a: 1}", "tags"),
        ("a: 1\n---\nb: 2", "a second document"),
        ("9" * 5000, "too large"),
        (str(MAX_INTEGER + 1), "too large"),
        (".inf", "no finite number"),
        (".nan", "no finite number"),
        ("1e400", "no finite number"),
        ("&a [*a]", "refers to nothing"),
        ("*a", "refers to nothing"),
        ("{<<: {a: 1}}", "merge keys"),
        ("{[a]: 1}", "a key must be text"),
        ("[" * 40, "levels are nested"),
        ("[" + "1," * 20_000 + "]", "values"),
        ('"\\ud800"', "surrogate"),
        ('"\\0"', "NUL"),
        ('"\\UFFFFFFFF"', "cannot be read as YAML"),
        ("a: \x00", "not allowed"),
        ("a: [1", "cannot be read as YAML"),
    ],
)
def test_parse_refuses_everything_else(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(text, "recipe x.yaml")
    assert str(caught.value).startswith("recipe x.yaml")
    assert len(str(caught.value)) < 300


def test_parse_copies_what_an_alias_stands_for_within_limits() -> None:
    value = parse("a: &a {x: [1]}\nb: *a", "x")
    assert value == {"a": {"x": [1]}, "b": {"x": [1]}}
    assert value["a"]["x"] is not value["b"]["x"]
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    with pytest.raises(ConfigError, match="more than 10,000 values"):
        parse("\n".join(rows), "x")


@pytest.mark.parametrize(
    "value",
    [
        "1e5", "1e-4", "+.5", "1.0e5", "no", "yes", "010", "0o10", "1:30", "2001-01-01", "", "null",
        "~", "None", "<<", "=", "a: b", "#a", "a #b", " a", "'x'", "ä", "a\nb", "a\x85", "a\u2028b",
        "1e400", ".inf", "9" * 30, True, None, 3, 1e-5, 0.1, -1.5e300,
    ],
)  # fmt: skip
def test_dump_is_read_alike_by_both_versions_of_yaml(value: Any) -> None:
    content = {"a": value, "b": [value]}
    for text in (dump(content), dump_inline(content)):
        assert parse(text, "x") == content
        assert yaml.safe_load(text) == content
    assert parse_overrides([f"x={dump_inline(value)}"]) == {"x": value}


def test_read_file_refuses_what_is_no_text_file(tmp_path: Path) -> None:
    pipe, large, utf16, latin = (tmp_path / name for name in ("pipe", "large", "utf16", "latin"))
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    utf16.write_text("a: 1", "utf-16")
    latin.write_bytes("a: ä".encode("latin-1"))
    cases = [
        (pipe, "a pipe or a device"), (Path("/dev/zero"), "a pipe or a device"),
        (tmp_path, "is a folder"), (large, "more than"), (utf16, "is not UTF-8"),
        (latin, "is not UTF-8"), (tmp_path / "none", "No such file"),
    ]  # fmt: skip
    for path, message in cases:
        with pytest.raises(ConfigError, match=message):
            read_file(path, f"recipe {path}")
    marked = tmp_path / "marked"
    marked.write_text("a: 1", "utf-8-sig")
    assert read_file(marked, "x") == {"a": 1}


@pytest.mark.parametrize("text", ["", "# nothing\n", "5", "[]", "false", "''", "- a"])
def test_read_yaml_needs_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe .*r.yaml: .* must be keys with values"):
        read_yaml(path, "method: vkd")


def test_parse_overrides_refuses_comments_and_shortens_values() -> None:
    for pair in ("cache=#a", "cache=a #b"):
        with pytest.raises(ConfigError, match="comment. Put it in quotes"):
            parse_overrides([pair])
    assert parse_overrides(["cache='#a'", "data=a#b"]) == {"cache": "#a", "data": "a#b"}
    with pytest.raises(ConfigError) as caught:
        parse_overrides([f"cache=[{'x' * 100_000}"])
    assert len(str(caught.value)) < 400
