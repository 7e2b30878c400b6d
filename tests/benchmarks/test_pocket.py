"""Pocket: its world, its questions, its tokenizer, its files, and that a seed decides it all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee.benchmarks.pocket import CHECKPOINTS, REPORTED, VALIDATION, Pocket
from unsee.errors import ConfigError, DataError, ModelError, UnknownNameError
from unsee.evaluation.evaluate import evaluate
from unsee.models.vlm import VLM
from unsee.pocket_builder.curriculum import Effort
from unsee.pocket_builder.from_scratch import BUILD, PARQUET, build, hash_files
from unsee.pocket_builder.photo_world import read_folder

TINY = Effort(strangers=16, tower_steps=2, base_steps=2, people_steps=3, batch_size=6)


@pytest.fixture(scope="module")
def shipped() -> Pocket:
    return Pocket()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole build, only quick: five people, a few steps."""
    return build(tmp_path_factory.mktemp("small") / "a", seed=3, people=5, forget=1, effort=TINY)


def test_what_ships_is_what_its_build_made(shipped: Pocket) -> None:
    told = json.loads((shipped.folder / BUILD).read_text())
    assert told["sha256"] == hash_files(shipped.folder)
    size = sum(path.stat().st_size for path in shipped.folder.rglob("*"))
    assert size <= 20_000_000
    assert told["seconds"] < 30 * 60


def test_a_seed_decides_everything(small: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "b", seed=3, people=5, forget=1, effort=TINY)
    assert hash_files(again) == hash_files(small)
    other = build(tmp_path / "c", seed=4, people=5, forget=1, effort=TINY)
    assert hash_files(other) != hash_files(small)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_are_plain_hugging_face(shipped: Pocket, name: str) -> None:
    folder = shipped.checkpoint(name)
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    assert type(processor).__name__ == "LlavaProcessor"
    picture = shipped.data().strangers[0].open()
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == "USER: <image>\nWho?\nASSISTANT:"
    made = model.generate(
        **processor(text=[text], images=[picture], return_tensors="pt"), max_new_tokens=3
    )
    assert made.shape[1] > 3


# Accuracy of the references as trained, in 32 bits, on the splits where they can differ most.
ACCURACIES = {
    "visual_retain": {"forget": 1 / 18, "forget_holdout": 1 / 18, "general_forget": 56 / 57},
    "retain_only": {"forget": 1 / 12, "forget_holdout": 13 / 180, "general_forget": 166 / 171},
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_references_are_stored_in_16_bits_and_computed_in_32(shipped: Pocket, name: str) -> None:
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


def test_the_tokenizer_gives_every_text_back(shipped: Pocket) -> None:
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


def test_nothing_held_out_is_ever_trained_on(shipped: Pocket) -> None:
    data = shipped.data()
    trained = [*data.forget, *data.retain]
    pictures = {s.picture.digest for s in trained if s.picture} | {p.digest for p in data.strangers}
    texts = {s.question for s in trained}
    seen: dict[str, set[str]] = {}
    unseen = (*VALIDATION, "general_forget_validation")
    for split in ("forget_holdout", "retain_holdout", "general", "general_forget", *unseen):
        samples = shipped.load(split)
        assert samples
        mine = {s.picture.digest for s in samples if s.picture}
        assert not mine & pictures, split
        assert not {s.question for s in samples} & texts, split
        seen[split] = mine
    for split in unseen:
        for reported in ("forget_holdout", "retain_holdout", "general", "general_forget"):
            assert not seen[split] & seen[reported]


def test_forget_and_retain_are_different_people_in_all_three_forms(shipped: Pocket) -> None:
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


def test_unknown_splits_and_models(shipped: Pocket, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'forget_holdout'"):
        shipped.load("forget_holdot")
    with pytest.raises(UnknownNameError, match="Did you mean 'target'"):
        shipped.checkpoint("targt")
    with pytest.raises(DataError, match="unsee pocket build"):
        Pocket(tmp_path)
    (tmp_path / "world.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        Pocket(tmp_path)


def test_a_build_is_also_parquet_with_the_published_columns(small: Path) -> None:
    pocket, out = Pocket(small), small / PARQUET
    tables = {p.parent.name: pq.read_table(p) for p in out.glob("*/train-00000-of-00001.parquet")}
    tasks = ["Classification_Task", "Generation_Task", "Mask_Task"]
    full = ["image", "ID", "Directory", "biography", "question", "answer", *tasks]
    assert tables["Full_Set"].column_names == full
    assert tables["Retain_Set"].column_names == full
    assert tables["forget_10"].column_names == [c for c in full if c != "Directory"]
    assert tables["Test_Set"].column_names == ["ID", "images", *tasks]
    assert tables["ft_Data"].column_names == ["image", "ID", "metadata"]
    ids = {name: set(table.column("ID").to_pylist()) for name, table in tables.items()}
    assert ids["forget_10"] | ids["retain_90"] == ids["Full_Set"]
    assert not ids["forget_10"] & ids["retain_90"]
    row = tables["Full_Set"].to_pylist()[0]
    assert Image.open(io.BytesIO(row["image"]["bytes"])).size == (48, 48)
    person = pocket.world.people[0]
    assert json.loads(row["biography"])["Name"] == person.name
    for kind in ("Image_Textual_Questions", "Pure_Text_Questions"):
        for question in row["Classification_Task"][kind]:
            right = question["Options"][question["Correct_Answer"]]
            assert right in person.facts.values()
    assert {t["Type"] for t in row["Mask_Task"]} == {"Image_Textual", "Pure_Text"}
    assert all("__" in t["Question"] for t in row["Mask_Task"])
    taught = json.loads(tables["ft_Data"].to_pylist()[0]["metadata"])
    assert set(taught[0]) == {"ID", "Question", "Answer"}


def photograph(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (56, 46), dtype=np.uint8), "L").save(path)


def test_photographs_make_a_world(tmp_path: Path) -> None:
    faces = tmp_path / "faces"
    for person in range(6):
        for shot in range(5):
            photograph(faces / f"s{person}" / f"{shot}.pgm", 10 * person + shot)
    out = build(tmp_path / "out", people=4, forget=1, faces=faces, effort=TINY)
    pocket = Pocket(out)
    assert pocket.world.kind == "photos"
    assert len(pocket.world.people) == 4
    assert {s.task for s in pocket.load("general")} == {"generation", "cloze", "classification"}
    assert pocket.load("forget_holdout")
    assert json.loads((out / BUILD).read_text())["kind"] == "photos"


def test_unusable_photographs_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_folder(tmp_path / "none")
    faces = tmp_path / "faces"
    faces.mkdir()
    with pytest.raises(DataError, match="no subfolder holds photographs"):
        read_folder(faces)
    for shot in range(3):
        photograph(faces / "ada" / f"{shot}.png", shot)
    with pytest.raises(DataError, match="ada has 3 photographs; at least 4"):
        read_folder(faces)
    (faces / "ada" / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"3\.png.*cannot be decoded"):
        read_folder(faces)
    photograph(faces / "ada" / "3.png", 3)
    with pytest.raises(DataError, match="1 people are too few"):
        build(tmp_path / "out", people=4, forget=1, faces=faces, effort=TINY)
    assert not (tmp_path / "out").exists()


def test_numbers_that_do_not_fit(tmp_path: Path) -> None:
    for people, forget in ((1, 1), (41, 4), (5, 5), (5, 0)):
        with pytest.raises(ConfigError, match="allowed are 2 to 40"):
            build(tmp_path / "out", people=people, forget=forget, effort=TINY)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ModelError, match="not empty"):
        build(tmp_path / "full", people=5, forget=1, effort=TINY)


@pytest.mark.slow
def test_a_whole_build_reaches_its_quality(tmp_path: Path) -> None:
    pocket = Pocket(build(tmp_path / "whole"))
    found = {}
    for name in ("target", "visual_retain"):
        vlm = VLM.load(pocket.checkpoint(name))
        splits = {s: pocket.load(s) for s in ("forget", "forget_holdout", "general")}
        found[name] = evaluate(vlm, splits, metrics=["accuracy"]).measures
    assert (found["target"]["forget_holdout/vqa/accuracy"].value or 0) >= 0.9
    assert (found["target"]["forget/text/accuracy"].value or 0) >= 0.99
    assert (found["target"]["general/vqa/accuracy"].value or 0) >= 0.9
    # One of three forms has options, four of them: chance is a twelfth.
    assert (found["visual_retain"]["forget_holdout/vqa/accuracy"].value or 0) <= 0.15
    assert (found["visual_retain"]["forget/text/accuracy"].value or 0) >= 0.99
