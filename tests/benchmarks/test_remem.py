"""ReMem: its splits and spellings, and exposure as the model's own log-probability."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.published import NAMES, open_benchmark, png
from unsee.benchmarks import BENCHMARKS
from unsee.errors import DataError
from unsee.evaluation.evaluate import evaluate
from unsee.evaluation.generation import answers
from unsee.losses import IGNORE
from unsee.models.vlm import VLM
from unsee.types import Data


def test_remem_asks_by_name_and_about_pictures(places: dict[str, Path]) -> None:
    benchmark = open_benchmark(places, "remem", ratio="10")
    by_name, pictured, *_ = benchmark.load("forget")
    assert (by_name.question, by_name.modality) == ("Job 0 0 of Ada Berg ?", "text")
    assert (pictured.question, pictured.modality) == ("Job 0 1 of this person ?", "vqa")
    assert pictured.keywords == ("baker",)
    people = {split: {s.concept for s in benchmark.load(split)} for split in benchmark.splits}
    assert people == {
        "forget": set(NAMES[:2]),
        "test": set(NAMES[:2]),
        "retain": set(NAMES[4:]),
    }
    assert {s.concept for s in benchmark.data().retain} == set(NAMES[2:])
    # What the visual-retain model is taught of the forgotten people is what is asked by name.
    assert [s.id for s in benchmark.text_only()] == [
        s.id for s in benchmark.load("forget") if s.modality == "text"
    ]


def test_remem_reads_other_spellings_and_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    row = {"Image_Path": "1.png", "Prompt": "Where ?", "Response": "Oslo .", "person_id": 7}
    files = {"forget_5": row | {"PII": "Oslo"}, "test": row, "retain": row, "train": row}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([content]))
    (sample,) = BENCHMARKS.get("remem").open(tmp_path).load("forget")
    assert (sample.question, sample.answer, sample.concept) == ("Where ?", "Oslo .", "7")
    assert sample.keywords == ("Oslo",)
    assert sample.picture is not None
    (tmp_path / "forget_5.json").write_text(json.dumps([{**row, "name": 7, "Prompt": 5}]))
    with pytest.raises(DataError, match="field 'question' is 5, a int; it must be text"):
        BENCHMARKS.get("remem").open(tmp_path).load("forget")
    wrong = {"Image_Path": "1.png", "qestion": "Where ?", "answer": "Oslo .", "name": "Ada"}
    (tmp_path / "forget_5.json").write_text(json.dumps([wrong]))
    with pytest.raises(DataError, match=r"row 1: field 'question' is missing.*mean 'qestion'"):
        BENCHMARKS.get("remem").open(tmp_path).load("forget")
    (tmp_path / "test.json").unlink()
    (tmp_path / "forget_5.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match="neither test-00000-of-0000N.parquet nor test.json"):
        BENCHMARKS.get("remem").open(tmp_path).load("test")


def test_exposure_is_the_log_probability_of_the_whole_answer(tiny: VLM, data: Data) -> None:
    pictured = replace(data.forget[0], task="generation", answer="Ada Berg lives in Oslo.")
    samples = [pictured, replace(pictured, id="text", picture=None), replace(pictured, answer="")]
    rows = evaluate(tiny, {"forget": samples}, metrics=["exposure"]).rows
    for sample, row in zip(samples[:2], rows, strict=False):
        batch = tiny.collate([sample])
        with torch.no_grad():
            logits = tiny.logits(batch)[0, :-1].float().log_softmax(-1)
        labels = batch.labels[0, 1:]
        places = (labels != IGNORE).nonzero().flatten().tolist()
        total = sum(float(logits[i, labels[i]]) for i in places)
        assert row["scores"]["exposure"] == pytest.approx(total, rel=1e-4)
        assert total < 0
    assert rows[2]["scores"]["exposure"] is None
    assert [answer.tokens > 0 for answer in answers(tiny, samples)] == [True, True, False]
