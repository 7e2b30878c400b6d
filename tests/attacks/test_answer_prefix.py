"""The attack `answer_prefix`: the first words of the true answer are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.tiny import make
from unsee.attacks import Subject
from unsee.attacks.answer_prefix import AnswerPrefix
from unsee.evaluation.generation import generate
from unsee.families import FAMILIES
from unsee.losses import IGNORE
from unsee.models.vlm import VLM
from unsee.types import Picture, Sample


def test_answer_prefix_splits_the_true_answer(subject: Subject) -> None:
    originals = subject.samples["forget_holdout"]
    questions = {s.id: s for s in AnswerPrefix(words=2).apply(subject).samples["forget_holdout"]}
    original = next(s for s in originals if s.task == "generation")
    prefilled = questions[original.id]
    assert f"{prefilled.prefill} {prefilled.answer}" == original.answer
    vlm = subject.vlm
    prompt = vlm.family.text(vlm.processor, prefilled, with_answer=False)
    assert prompt.endswith("ASSISTANT: this is")
    batch = vlm.collate([prefilled])
    labels = batch.labels[batch.labels != IGNORE]
    assert vlm.processor.tokenizer.decode(labels).strip() == f"{prefilled.answer}</s>"
    # An answer of one word would be given away as a whole.
    letter = next(s for s in originals if s.task == "classification")
    assert questions[letter.id] == letter


@pytest.mark.parametrize("name", [n for n, kind in FAMILIES.items() if not kind.is_found])
def test_collate_puts_the_prefill_at_the_end_of_the_prompt_in_every_family(
    name: str, tmp_path: Path
) -> None:
    vlm = VLM.load(make(name, tmp_path / name))
    path = tmp_path / "p.png"
    Image.new("RGB", (40, 30), "red").save(path)
    sample = Sample("a", "Who?", "Berg", Picture.from_path(path), prefill="Ada")
    batch = vlm.collate([sample])
    tokenizer = vlm.processor.tokenizer
    labels = batch.labels[0][batch.labels[0] != IGNORE]
    end = tokenizer.decode([vlm.family.answer_end(vlm.processor).token])
    assert tokenizer.decode(labels).strip() == f"Berg{end}"
    prompt = vlm.collate([sample], with_answer=False).inputs["input_ids"][0]
    assert tokenizer.decode(prompt).endswith("Ada")
    assert len(generate(vlm, [sample], max_new_tokens=2)) == 1
