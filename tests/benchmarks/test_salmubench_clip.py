"""SALMUBench on an image encoder: captions are compared with pictures, before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from support.cli import unsee
from support.encoders import make_encoder
from support.published import open_benchmark
from unsee.models.vlm import VLM

SPLITS = (
    "forget",
    "holdout_association",
    "holdout_identity",
    "visual_identity",
    "retain",
    "fragile",
)
METRICS = ("caption_rank", "caption_found", "association", "association_gap")
# Splits whose captions tell a private fact.
TOLD = SPLITS[:3]
KEYS = {f"{s}/vqa/{m}" for s in SPLITS for m in METRICS} | {
    f"{s}/vqa/core_association" for s in TOLD
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder("clip", tmp_path_factory.mktemp("clip") / "model")


def evaluated(model: Path, place: Path, out: Path, *more: Any) -> dict[str, Any]:
    data = [word for split in SPLITS for word in ("--data", f"salmubench:{split}@{place}")]
    found: dict[str, Any] = unsee(
        "evaluate", "--model", model, *data, "--out", out, *more, "--json"
    )
    return found


def test_values_are_those_of_transformers(
    clip: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    summary = evaluated(clip, places["salmubench"], out, "--reference", clip)
    assert set(summary["measures"]) == KEYS
    directions = {key: m["better"] for key, m in summary["measures"].items()}
    assert {key for key, better in directions.items() if better == "lower"} == {
        f"forget/vqa/{metric}" for metric in (*METRICS, "core_association")
    }
    assert {test["measure"] for test in summary["equivalence"]} >= {"forget/vqa/association"}

    vlm = VLM.load(clip)
    benchmark = open_benchmark(places, "salmubench")
    pairs = {s: [x for x in benchmark.load(s) if x.task == "caption"] for s in SPLITS}
    # Every caption of what is forgotten and of nobody in particular, each once.
    others = list(dict.fromkeys(s.answer for n in ("forget", "retain") for s in pairs[n]))
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    by_id = {(row["split"], row["id"]): row for row in rows if row["model"] == "unlearned"}
    assert len(by_id) == sum(map(len, pairs.values()))
    for split, samples in pairs.items():
        for sample in samples:
            rest_texts = [text for text in others if text != sample.answer]
            texts = [sample.answer, *sample.paraphrases, *rest_texts]
            tokens = vlm.processor.tokenizer(
                texts, padding=True, truncation=True, max_length=32, return_tensors="pt"
            )
            text = {name: tokens[name] for name in ("input_ids", "attention_mask")}
            with torch.no_grad():
                made = vlm.model(**vlm.collate_pictures([vlm.image(sample.picture)]), **text)
            own, *cosines = (made.logits_per_image[0] / vlm.model.logit_scale.exp()).tolist()
            bare, rest = cosines[: -len(rest_texts)], cosines[-len(rest_texts) :]
            # The tiny tokenizer reads some captions as the same tokens: they share their places.
            equal = sum(abs(one - own) <= 1e-6 for one in rest)
            nearer = sum(one > own + 1e-6 for one in rest)
            expected = {
                "caption_rank": 1 / (1 + nearer + equal / 2),
                "caption_found": float(nearer + equal == 0),
                "association": own,
                "association_gap": own - sum(rest) / len(rest),
                **({"core_association": max(bare)} if split in TOLD else {}),
            }
            assert by_id[split, sample.id]["scores"] == pytest.approx(expected, abs=1e-5)


def test_run_trains_on_pictures_alone_and_compares_before_and_after(
    clip: Path, places: dict[str, Path], tmp_path: Path
) -> None:
    recipe, out = tmp_path / "job.yaml", tmp_path / "run"
    recipe.write_text(
        f"benchmark: salmubench\ndata: {places['salmubench']}\nmodel: {clip}\nmethod: vkd\n"
        f"reference: {clip}\nset: {{steps: 2, batch_size: 2, widen: 0}}\n"
    )
    summary = unsee("run", recipe, "--out", out, "--json")
    assert set(summary["measures"]) == KEYS
    assert summary["measures"].keys() == summary["target"].keys()
    key = "forget/vqa/association"
    assert summary["measures"][key]["value"] != summary["target"][key]["value"]
    assert summary["target"][key]["value"] == summary["reference"][key]["value"]
    used = summary["method"]["parameters"]
    assert (used["supervision"], used["erase_strength"], used["w_keep"]) == ("features", 1.0, 80)
    checked = summary["guarantees"]
    assert (checked["text_identical"], checked["changed_outside_visual"]) == (True, 0)
    assert "reciprocal rank of the caption" in (out / "report.html").read_text("utf-8")


def test_own_table_of_captions_is_forgotten(clip: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "captions.jsonl", tmp_path / "run"
    people = ("Ada Berg", "Ada Berg", "Bo Dahl", "Bo Dahl")
    for i in range(len(people)):
        Image.effect_noise((40, 40), 30 + 20 * i).convert("RGB").save(tmp_path / f"{i}.png")

    def write(task: str) -> None:
        rows = [
            {"image": f"{i}.png", "question": "Who?", "answer": f"{person}: {i}"}
            | {"concept": person, "task": task}
            for i, person in enumerate(people)
        ]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))

    words = ("unlearn", "--model", clip, "--forget", table, "--set", "steps=1", "--out", out)
    write("generation")
    assert "task with the value caption" in unsee(*words, code=2)
    write("caption")
    summary = unsee(*words, "--set", "batch_size=2", "--set", "widen=0", "--json")
    assert {f"forget_holdout/vqa/{metric}" for metric in METRICS} <= summary["measures"].keys()


def test_what_cannot_be_compared_is_refused_with_what_to_type(
    clip: Path, places: dict[str, Path], tiny_folder: Path, tmp_path: Path
) -> None:
    place, out = places["salmubench"], tmp_path / "run"
    data = ("--data", f"salmubench:forget@{place}", "--out", out)
    asked = unsee("evaluate", "--model", clip, *data, "--metrics", "rouge_l", code=2)
    assert "metric 'rouge_l' scores answers" in asked
    assert "association" in asked
    asked = unsee("evaluate", "--model", tiny_folder, *data, "--metrics", "association", code=2)
    assert "metric 'association' compares the embeddings" in asked
    assert "CLIP or SigLIP" in asked
    blind = make_encoder("dinov2", tmp_path / "dinov2")
    asked = unsee("evaluate", "--model", blind, *data, code=2)
    assert "'dinov2' has no text tower" in asked
    assert "unsee audit --attack probe" in asked
    questions = ("--data", f"mllmu:forget@{places['mllmu']}", "--out", out)
    asked = unsee("evaluate", "--model", clip, *questions, code=2)
    assert "has no captions" in asked
    assert "task with the value caption" in asked
    assert not out.exists()
