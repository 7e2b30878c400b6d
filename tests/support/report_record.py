"""A run folder as `unsee demo` leaves it: invented people, drawn pictures, plain numbers.

It is input for the tests of reading and reporting, and the sample that docs/records.md is held
against.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

PEOPLE = (
    ("Ada Berg", "baker", "Lund", "forget_holdout"),
    ("Otto Lind", "sailor", "Bern", "forget_holdout"),
    ("Mira Holm", "painter", "Riga", "forget_holdout"),
    ("Emil Falk", "judge", "Porto", "forget_holdout"),
    ("Nora Winter", "pilot", "Oslo", "retain_holdout"),
    ("Hugo Stern", "teacher", "Ghent", "retain_holdout"),
)
SHARES = (0.1, 0.2, 0.5, 1.0)
SCORES = {  # before, after, visual-retain, retain-only
    "forget/vqa": (0.98, 0.01, 0.02, 0.03),
    "forget_holdout/vqa": (0.95, 0.02, 0.03, 0.02),
    "retain/vqa": (0.97, 0.965, 0.97, 0.96),
    "retain_holdout/vqa": (0.93, 0.92, 0.93, 0.93),
    "general/vqa": (0.94, 0.94, 0.93, 0.94),
    "general_forget/vqa": (0.93, 0.92, 0.94, 0.92),
    "forget/text": (1.0, 1.0, 1.0, 0.0),
    "retain/text": (1.0, 1.0, 1.0, 1.0),
}


def make_run(folder: Path, **changes: Any) -> Path:
    """Writes a run folder.

    Args:
        folder: Where; made anew.
        changes: Parts of summary.json to replace; None removes a part.
    """
    (folder / "pictures").mkdir(parents=True)
    rng = random.Random(0)
    for number in range(len(PEOPLE)):
        draw_face(rng).save(folder / "pictures" / f"{number}.png")
    summary = {**sample_summary(), **changes}
    summary = {key: value for key, value in summary.items() if value is not None}
    write_json(folder / "summary.json", summary)
    steps = [json.dumps(step) for step in sample_steps()]
    (folder / "train.jsonl").write_text("\n".join(steps) + "\n", encoding="utf-8")
    lines = [json.dumps(score) for score in sample_scores()]
    (folder / "scores.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "environment.json", summary.get("provenance", {}))
    (folder / "recipe.yaml").write_text("# unsee run pocket-vkd\nmethod: vkd\n")
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def draw_face(rng: random.Random, size: int = 48) -> Image.Image:
    """A drawn face of `size` pixels."""
    image = Image.new("RGB", (size, size), (rng.randrange(60, 220), rng.randrange(60, 220), 190))
    draw = ImageDraw.Draw(image)
    skin = (rng.randrange(140, 245), rng.randrange(110, 190), rng.randrange(80, 150))
    hair = (rng.randrange(20, 160), rng.randrange(20, 110), rng.randrange(10, 90))
    s = size / 48
    draw.ellipse((10 * s, 6 * s, 38 * s, 36 * s), fill=hair)
    draw.ellipse((13 * s, 11 * s, 35 * s, 40 * s), fill=skin)
    for x in (19, 29):
        draw.ellipse((x * s - 2 * s, 22 * s, x * s + 2 * s, 26 * s), fill=(255, 255, 255))
        draw.ellipse((x * s - s, 23 * s, x * s + s, 25 * s), fill=(30, 40, 60))
    draw.arc((19 * s, 27 * s, 29 * s, 35 * s), 10, 170, fill=(150, 50, 50), width=max(1, int(s)))
    shirt = (rng.randrange(40, 230), rng.randrange(40, 230), rng.randrange(40, 230))
    draw.rectangle((8 * s, 41 * s, 40 * s, 48 * s), fill=shirt)
    return image


def sample_summary() -> dict[str, Any]:
    """The content of a whole summary.json, with every documented key."""
    return {
        "schema": 1,
        "name": "demo",
        "kind": "demo",
        "created": "2026-03-14T09:26:53Z",
        "command": "unsee demo --out runs/demo --seed 0",
        "verdict": "Forgotten: as the record says.",
        "method": {
            "name": "vkd",
            "parameters": {
                "steps": 400,
                "lr": 2e-4,
                "erase": "stranger",
                "layers": ["projector"],
                "augment": True,
            },
            "source": "Robust MLLM Unlearning via Visual Knowledge Distillation, arXiv 2512.11325",
        },
        "benchmark": {"name": "pocket", "people": 40, "forgotten": 4, "pictures": 520},
        "measures": _measures(1),
        "target": _measures(0),
        "reference": _measures(2),
        "retain_only": _measures(3),
        "guarantees": {
            "text_identical": True,
            "text_probes": 64,
            "language_part_sha256_unchanged": True,
            "language_part_sha256": "8f14e45fceea167a5a36dedd4bea2543" * 2,
            "changed_tensors": 42,
            "total_tensors": 120,
            "changed_outside_visual": 0,
            "patch_bytes": 3_412_224,
            "reason": None,
        },
        "attacks": {
            "relearn": [
                relearning(share, modules)
                for modules in ("visual", "language_lora", "all")
                for share in SHARES
            ]
        },
        "choices": {
            "mask": {"preserved_by_name": 48, "visual": {"chosen": 98_648, "of": 686_848}},
            "neurons": {
                "chosen": 115,
                "of": 2_304,
                "by_part": {"encoder": 64, "language": 51},
                "by_layer": {"model.vision_tower.encoder.layers.0.mlp.fc2": 64},
            },
        },
        "cost": {
            "seconds": 83.4,
            "steps": 400,
            "trainable_parameters": 812_544,
            "total_parameters": 1_836_032,
            "peak_memory_bytes": 912_000_000,
            "samples_per_second": 153.2,
        },
        "representation": {"forget_shift": 1.874, "retain_shift": 0.093},
        "gallery": gallery(),
        "provenance": {
            "unsee": "0.1.0",
            "python": "3.11.7",
            "torch": "2.13.0",
            "transformers": "5.23.0",
            "platform": "Linux-6.1-x86_64",
            "cpu": "a processor",
            "threads": 2,
            "device": "cpu",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "seed": 0,
            "data_sha256": "1b" * 32,
            "start_weights_sha256": "2c" * 32,
            "result_weights_sha256": "3d" * 32,
        },
        "artifacts": {"patch": "patch", "model": None, "report": "report.html"},
    }


def _measures(which: int) -> dict[str, Any]:
    made = {}
    for prefix, values in SCORES.items():
        accuracy = values[which]
        better = "reference" if prefix.startswith("forget") and "vqa" in prefix else "higher"
        offsets = {"accuracy": 0.0, "cloze": 0.01, "rouge_l": 0.05, "probability": -0.04}
        for metric, offset in offsets.items():
            value = min(1.0, max(0.0, accuracy + (offset if 0 < accuracy < 1 else 0.0)))
            spread = 0.0 if value in (0.0, 1.0) else 0.03
            made[f"{prefix}/{metric}"] = {
                "value": round(value, 4),
                "low": round(max(0.0, value - spread), 4),
                "high": round(min(1.0, value + spread), 4),
                "n": 60 if prefix.startswith("forget") else 540,
                "n_unscored": 3 if metric == "probability" and prefix == "general/vqa" else 0,
                "better": better,
            }
    return made


def relearning(share: float, modules: str = "visual") -> dict[str, Any]:
    """One attack: everything comes back sooner with more samples and more weights."""
    pace = {"visual": 0.035, "language_lora": 0.05, "all": 0.09}[modules] * (0.4 + share)
    curves = {}
    starts = (("unlearned", 0.02, 1.25), ("reference", 0.03, 1.0), ("retain_only", 0.02, 0.8))
    for model, start, speed in starts:
        points = []
        for step in (0, 5, 10, 20, 40):
            value = start + 0.9 * (1 - math.exp(-pace * speed * step))
            point = {
                "step": step,
                "value": round(value, 4),
                "low": round(max(0.0, value - 0.06), 4),
                "high": round(min(1.0, value + 0.06), 4),
                "retain": round(0.92 - 0.0012 * step * share, 4),
            }
            points.append(point)
        curves[model] = points
    return {
        "share": share,
        "steps": 40,
        "lr": 2e-4,
        "modules": modules,
        "measure": "forget_holdout/vqa/accuracy",
        "retain_measure": "retain_holdout/vqa/accuracy",
        "curves": curves,
        "area_to_reference": round(0.01 + 0.02 * share, 4),
        "steps_to_half_recovery": None if modules == "visual" and share < 0.2 else 20,
    }


def gallery() -> list[dict[str, Any]]:
    """Three questions for each person, answered before, after and by the reference."""
    made = []
    for number, (name, job, city, split) in enumerate(PEOPLE):
        other = PEOPLE[(number + 2) % len(PEOPLE)]
        for question, truth, wrong in (
            ("What is the name of this person?", f"This is {name}.", f"This is {other[0]}."),
            ("What is this person's job?", f"This person works as a {job}.", "I do not know."),
            ("Where does this person live?", f"This person lives in {city}.", other[2]),
        ):
            kept = split == "retain_holdout"
            made.append(
                {
                    "concept": name,
                    "split": split,
                    "picture": f"pictures/{number}.png",
                    "question": question,
                    "truth": truth,
                    "before": truth,
                    "after": truth if kept else wrong,
                    "reference": truth if kept else "I do not know.",
                }
            )
    made.append(
        {
            "concept": None,
            "split": "general",
            "picture": "pictures/4.png",
            "question": "What colour is the background?",
            "truth": "The background is blue.",
            "before": "The background is blue.",
            "after": "The background is blue.",
            "reference": "The background is blue.",
        }
    )
    return made


def sample_steps(count: int = 400) -> list[dict[str, Any]]:
    """Training steps whose terms fall, with the noise of small batches."""
    rng = random.Random(1)
    made = []
    for step in range(count):
        fall = math.exp(-step / 90)
        terms = {
            "erase": 1.4 * fall + 0.15 + rng.gauss(0, 0.04),
            "keep": 0.30 * (1 - fall) * math.exp(-step / 250) + 0.02 + abs(rng.gauss(0, 0.01)),
            "retain": 0.05 + 0.2 * fall + abs(rng.gauss(0, 0.02)),
            "output": -0.5 * (1 - fall) + rng.gauss(0, 0.02),
        }
        terms = {name: round(value, 5) for name, value in terms.items()}
        loss = round(sum(terms.values()), 5)
        made.append(
            {
                "step": step,
                "loss": loss,
                "terms": terms,
                "lr": 2e-4,
                "seconds": round(0.2 * step, 2),
            }
        )
    return made


def sample_scores() -> list[dict[str, Any]]:
    """Per-sample scores of the gallery's questions, for every model."""
    made = []
    for number, entry in enumerate(gallery()):
        for model, key in (
            ("target", "before"),
            ("unlearned", "after"),
            ("reference", "reference"),
        ):
            made.append(
                {
                    "model": model,
                    "split": entry["split"],
                    "modality": "vqa",
                    "task": "generation",
                    "id": f"q{number}",
                    "concept": entry["concept"],
                    "picture": entry["picture"],
                    "question": entry["question"],
                    "truth": entry["truth"],
                    "output": entry[key],
                    "scores": {
                        "accuracy": float(entry[key] == entry["truth"]),
                        "probability": None,
                    },
                }
            )
    return made


def measured(value: float | None, **more: Any) -> dict[str, Any]:
    """A measure with a narrow interval."""
    ends = {"low": None, "high": None}
    if value is not None:
        ends = {"low": max(0.0, value - 0.01), "high": min(1.0, value + 0.01)}
    return {"value": value, **ends, "n": 60, "n_unscored": 0, "better": "higher", **more}
