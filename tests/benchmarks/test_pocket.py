"""Pocket: its splits, questions, tokenizer and checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee.benchmarks.pocket import CHECKPOINTS, REPORTED, VALIDATION, Pocket
from unsee.errors import DataError, UnknownNameError
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM


@pytest.fixture(scope="module")
def shipped() -> Pocket:
    return Pocket()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_loads_with_transformers(shipped: Pocket, name: str) -> None:
    folder = shipped.checkpoint(name)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    assert type(processor).__name__ == "LlavaProcessor"
    picture = shipped.data().strangers[0].open()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "USER: <image>\nWho?\nASSISTANT:"
    generated = model.generate(
        **processor(text=[text], images=[picture], return_tensors="pt"), max_new_tokens=3
    )
    assert generated.shape[1] > 3


# Accuracy of the references as trained, in 32 bits, on the splits where they can differ most.
ACCURACIES = {
    "visual_retain": {"forget": 1 / 18, "forget_holdout": 1 / 18, "general_forget": 56 / 57},
    "retain_only": {"forget": 1 / 12, "forget_holdout": 13 / 180, "general_forget": 166 / 171},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint_of_reference_is_stored_in_16_bits_and_computed_in_32(
    shipped: Pocket, name: str
) -> None:
    folder = shipped.checkpoint(name)
    with safe_open(folder / "model.safetensors", "pt") as file:
        stored = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    # Training starts from the target and the base, so that their bits decide users' results.
    assert stored == {"F16" if name in ACCURACIES else "F32"}
    vlm = VLM.load(folder)
    assert {tensor.dtype for tensor in vlm.model.state_dict().values()} == {torch.float32}
    if name in ACCURACIES:
        splits = {split: shipped.load(split) for split in ACCURACIES[name]}
        measures = evaluate(vlm, splits, metrics=["accuracy"]).measures
        for split, accuracy in ACCURACIES[name].items():
            assert measures[f"{split}/vqa/accuracy"].value == pytest.approx(accuracy), split


def test_tokenizer_decodes_every_text_exactly(shipped: Pocket) -> None:
    processor = AutoProcessor.from_pretrained(shipped.checkpoint("base"), local_files_only=True)
    tokens = processor.tokenizer
    for split in (*REPORTED, *VALIDATION, "general_forget_validation"):
        for sample in shipped.load(split):
            for text in (
                sample.question,
                sample.answer,
                f"USER: {sample.question}\nASSISTANT: {sample.answer}",
            ):
                ids = tokens(text)["input_ids"]
                assert tokens.unk_token_id not in ids, text
                assert tokens.decode(ids) == text


def test_held_out_splits_share_nothing_with_training_data(shipped: Pocket) -> None:
    data = shipped.data()
    trained = [*data.forget, *data.retain]
    pictures = {s.picture.digest for s in trained if s.picture} | {p.digest for p in data.strangers}
    texts = {s.question for s in trained}
    seen: dict[str, set[str]] = {}
    unseen = (*VALIDATION, "general_forget_validation")
    for split in ("forget_holdout", "retain_holdout", "general", "general_forget", *unseen):
        samples = shipped.load(split)
        assert samples
        held_out_pictures = {s.picture.digest for s in samples if s.picture}
        assert not held_out_pictures & pictures, split
        assert not {s.question for s in samples} & texts, split
        seen[split] = held_out_pictures
    for split in unseen:
        for reported in ("forget_holdout", "retain_holdout", "general", "general_forget"):
            assert not seen[split] & seen[reported]


def test_forget_and_retain_are_different_people_in_all_three_tasks(shipped: Pocket) -> None:
    data = shipped.data()
    forget = {s.concept for s in data.forget}
    assert forget == set(shipped.forgotten)
    assert len(forget) == 4
    assert not forget & {s.concept for s in data.retain}
    for split in REPORTED:
        samples = shipped.load(split)
        assert {s.task for s in samples} == {"generation", "cloze", "classification"}, split
        for sample in samples:
            if sample.task == "classification":
                right = sample.choices["ABCD".index(sample.answer)]
                assert f"{sample.answer}: {right}" in sample.question
    assert {s.modality for s in shipped.load("forget")} == {"vqa", "text"}


def test_load_and_checkpoint_refuse_unknown_names_and_damaged_builds(
    shipped: Pocket, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'forget_holdout'"):
        shipped.load("forget_holdot")
    with pytest.raises(UnknownNameError, match="Did you mean 'target'"):
        shipped.checkpoint("targt")
    with pytest.raises(DataError, match="unsee pocket build"):
        Pocket(tmp_path)
    (tmp_path / "world.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        Pocket(tmp_path)


@pytest.mark.parametrize("kind", ["long", "pipe", "folder", "deep", "text"])
def test_open_refuses_what_is_no_build(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / ("x" * 300 if kind == "long" else "build")
    if kind != "long":
        folder.mkdir()
    if kind == "pipe":
        os.mkfifo(folder / "world.json")
    elif kind == "folder":
        (folder / "world.json").mkdir()
    elif kind in ("deep", "text"):
        (folder / "world.json").write_text("[" * 100_000 if kind == "deep" else '{"seed": []}')
    with pytest.raises(DataError, match="xxx" if kind == "long" else "world.json") as caught:
        Pocket.open(folder)
    assert len(str(caught.value)) < 800
