"""Redaction: model cards and commands name nobody unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.cli import unsee
from support.training import lora_command
from unsee.artifacts.model_card import Card
from unsee.artifacts.redaction import hub_id, redact
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
    assert "text-only logits equal bit for bit (64 probes): True" in card
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
        "unsee run REDACTED base=BASE reference=REFERENCE retain_only=RETAIN_ONLY lr=1e-4 --set "
        "base=BASE --out OUT recipe.yaml"
    )


def test_hub_id_returns_only_hub_ids(tmp_path: Path) -> None:
    assert hub_id("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    for source in (tmp_path, "./a", "../a/b", "/a/b", "a", "a/b/c"):
        assert hub_id(source) is None
