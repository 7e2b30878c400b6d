"""Redaction: model cards and commands name nobody unless asked."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from support.training import lora_command
from unsee.artifacts.model_card import Card
from unsee.artifacts.pseudonyms import PSEUDONYM, Pseudonyms, Salt, find_salt
from unsee.artifacts.redaction import hub_id, redact, redact_setting
from unsee.artifacts.redactor import Redactor
from unsee.errors import ConfigError, RunError
from unsee.recipes.redaction import vocabulary
from unsee.types import Data, Sample


@pytest.fixture(scope="module")
def command(tiny_folder: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return lora_command(tmp_path_factory.mktemp("ada-berg"), tiny_folder, data)


@pytest.mark.parametrize(
    "kind,words",
    [("patch", []), ("adapter", ["--save", "adapter"]), ("model", ["--save", "model"])],
)
def test_model_card_names_nobody_unless_asked(
    kind: str, words: list[str], command: list[Any], tmp_path: Path
) -> None:
    out = tmp_path / "ada-berg"
    unsee(*command, *words, "--out", out)
    shipped = [p for p in (out / kind).iterdir() if p.suffix in (".md", ".jinja", ".json")]
    assert out / kind / "README.md" in shipped
    for path in shipped:
        if path.name != "tokenizer.json":  # the tiny vocabulary has words of theirs
            text = path.read_text().lower()
            for name in ("berg", "lind", "moser", "novak", str(tmp_path)):
                assert name not in text, path.name
    card = (out / kind / "README.md").read_text()
    assert "- people or other concepts: 2" in card
    assert "- pictures: 6" in card or "- pictures: 4" in card
    assert "| forget/vqa/" in card
    assert "--forget FORGET" in card
    assert "text-only outputs equal bit for bit (64 probes): True" in card
    unsee(*command, *words, "--names", "--out", tmp_path / "named")
    assert "Ada Berg" in (tmp_path / "named" / kind / "README.md").read_text()


def test_card_escapes_tags_in_names() -> None:
    sample = Sample("1", "Who?", "Ada", concept="<script>alert(1)</script>")
    card = Card("model", "A model", "base", None, "forgotten", [sample], "unsee", {}, names=True)
    assert "- &lt;script>alert(1)&lt;/script>: 0 pictures" in card.text()
    assert "<script" not in card.text()


def test_redact_replaces_names_anywhere_in_a_command() -> None:
    command = (
        "unsee run clients/ada_berg.yaml base=x/ada reference=a retain_only=b lr=1e-4 --set "
        "base=photos/cy --out 'my run' /srv/someone/recipe.yaml"
    )
    found = redact(command, {"Ada Berg"})
    assert found == (
        "unsee run RECIPE base=BASE reference=REFERENCE retain_only=RETAIN_ONLY lr=1e-4 --set "
        "base=BASE --out OUT RECIPE"
    )


@pytest.mark.parametrize(
    "name,word",
    [
        ("Bo Ng", "note=ng-1"),
        ("Zoë Çelik", unicodedata.normalize("NFD", "tag=çelik")),
        ("Zoë Çelik", "tag=CELIK2"),
        ("李娜", "tag=李娜_b"),
        ("Jean-Luc", "tag=jeanluc"),
    ],
)
def test_redact_knows_names_in_other_spellings(name: str, word: str) -> None:
    assert redact(f"unsee run pocket-vkd {word}", {name}) == "unsee run pocket-vkd REDACTED"
    assert redact("unsee run pocket-vkd lr=1e-4", {name}) == "unsee run pocket-vkd lr=1e-4"


def test_redact_drops_relative_recipes_and_folders() -> None:
    command = "unsee run ada.yaml --set cache=ada offload=bo --patch cy --salt di --visual-refit ed"
    assert redact(command) == (
        "unsee run RECIPE --set cache=CACHE offload=OFFLOAD --patch PATCH --salt SALT "
        "--visual-refit VISUAL-REFIT"
    )
    assert redact_setting("cache", "ada") == "CACHE"
    assert redact_setting("schedule", "cosine") == "cosine"


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(Pseudonyms(b"a key of sixteen bytes or more"), vocabulary())


@pytest.mark.parametrize(
    "typed,shown",
    [
        ("unsee run ng lr=1e-4 --out ng", "unsee run RECIPE lr=1e-4 --out OUT"),
        ("unsee request run ng 2026-17", "unsee request run ID ID"),
        ("unsee run pocket-vkd --redact ng=1", "unsee run pocket-vkd --redact KEY=1"),
        ("unsee audit --attack relearn?share=0.2+quantize", None),
        (
            "unsee audit --attack answer_prefix?text=Ada --attack=ng",
            "unsee audit --attack 'answer_prefix?text=TEXT' --attack=ATTACK",
        ),
        ("unsee evaluate --data ada=x.jsonl --metrics accuracy,cloze", None),
        ("unsee unlearn --forget pocket:forget --model a-lab/a-model --set erase=neutral", None),
        (
            "unsee unlearn --forget mllmu:forget@ada --set 'layers=[encoder.1, all]'",
            None,
        ),
        ("unsee unlearn 'unbalanced", "unsee"),
    ],
)
def test_redactor_keeps_only_known_words_of_a_command(
    typed: str, shown: str | None, redactor: Redactor
) -> None:
    expected = {
        "unsee evaluate --data ada=x.jsonl --metrics accuracy,cloze": (
            "unsee evaluate --data DATA --metrics accuracy,cloze"
        ),
        "unsee unlearn --forget mllmu:forget@ada --set 'layers=[encoder.1, all]'": (
            "unsee unlearn --forget FORGET --set 'layers=[encoder.1, all]'"
        ),
        "unsee audit --attack relearn?share=0.2+quantize": (
            "unsee audit --attack 'relearn?share=0.2+quantize'"
        ),
    }.get(typed, shown or typed)
    found = redactor.command(typed)
    assert found == expected
    assert redactor.command(found) == found


def test_redactor_hides_typed_settings_the_same_way_each_time(redactor: Redactor) -> None:
    settings = {"lr": 1e-4, "base": "ada", "erase": "neutral", "set": {"cache": "Ng"}, "salt": "a"}
    typed = redactor.typed(settings)
    assert typed["lr"] == 1e-4 and typed["erase"] == "neutral" and typed["salt"] is None
    assert PSEUDONYM.fullmatch(typed["base"]) and PSEUDONYM.fullmatch(typed["set"]["cache"])
    assert redactor.typed(settings) == typed == redactor.typed(typed)
    other = Redactor(Pseudonyms(b"another key of sixteen bytes"), vocabulary()).typed(settings)
    assert other["base"] != typed["base"]


def test_redactor_reveals_what_it_knows(redactor: Redactor) -> None:
    sample = Sample("1/a", "Who is this?", "Ada", concept="Ada Berg", group="g")
    knowing = redactor.knowing([sample])
    record = {
        "rows": [{"id": "1/a", "concept": "Ada Berg", "group": "g", "output": "Ada", "scores": {}}],
        "by_person": {"Ada Berg": 0.5},
        "before": 0.25,
    }
    hidden = knowing.record(record)
    assert "Ada" not in str(hidden) and hidden["before"] == 0.25
    del record["rows"][0]["output"]
    assert knowing.reveal(hidden) == record


@pytest.mark.parametrize("content,words", [(b"short", "16 to 4,096"), (b"x" * 5000, "16 to 4,096")])
def test_find_salt_refuses_weak_keys(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        find_salt(tmp_path / "key", tmp_path / "run")


def test_find_salt_makes_a_key_beside_the_run_folder_for_its_owner(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is in the run folder"):
        find_salt(tmp_path / "run" / "key", tmp_path / "run")
    with pytest.raises(ConfigError, match="no ordinary file"):
        find_salt(tmp_path, tmp_path / "run")
    salt = find_salt(None, tmp_path / "run")
    assert salt.is_new and not salt.path.exists()
    salt.keep()
    assert salt.path == tmp_path / "run.salt" and salt.path.stat().st_mode & 0o777 == 0o600
    again = find_salt(None, tmp_path / "run")
    assert again.key == salt.key and not again.is_new
    with pytest.raises(RunError, match="another process"):
        Salt(b"another key of sixteen bytes", salt.path, is_new=True).keep()


def test_hub_id_returns_only_hub_ids(tmp_path: Path) -> None:
    assert hub_id("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    for source in (tmp_path, "./a", "../a/b", "/a/b", "a", "a/b/c"):
        assert hub_id(source) is None
