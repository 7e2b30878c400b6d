"""`unsee unlearn` on image encoders alone: run, patch, report and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.cli import unsee
from support.encoders import make_encoder
from unsee.models.vlm import VLM
from unsee.recipes.photographs import NO_QUESTIONS
from unsee.records.reader import Run, read_run
from unsee.report.verdict import judge
from unsee.runs.photographs import CAPTION

ATTACKS = ("prototype", "probe", "difference", "relearn_features", "in_context", "relearn")


@pytest.fixture(scope="module", params=["clip", "dinov2"])
def made(
    request: pytest.FixtureRequest,
    photographs: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Run]:
    """A tiny encoder, and a finished run on it."""
    root = tmp_path_factory.mktemp(request.param)
    model = make_encoder(request.param, root / "model")
    (root / "recipe.yaml").write_text(
        f"model: {model}\nforget: {photographs['forget']}\nretain: {photographs['retain']}\n"
        "set: {steps: 3, batch_size: 2, lr: 1.0e-3, widen: 0}\n"
        f"attacks: [{', '.join(ATTACKS)}]\n"
    )
    unsee("run", root / "recipe.yaml", "--out", root / "run")
    return model, read_run(root / "run")


def test_run_measures_retrieval_and_verification(made: tuple[Path, Run]) -> None:
    _, run = made
    summary = run.summary
    record = summary.recognition
    assert record is not None
    assert record.encoder
    assert record.questions == ()
    assert record.not_asked == "an image encoder answers no questions"
    assert record.identities == 6
    for model in (summary.measures, summary.target):
        assert model is not None
        for metric in ("rank_1", "verification_auc"):
            for split in ("forget_holdout", "retain_holdout"):
                assert 0 <= (model[f"{split}/features/{metric}"].value or 0) <= 1
    assert not any("/vqa/" in key for key in summary.measures or {})


def test_people_are_moved_to_the_mean_and_not_beyond(made: tuple[Path, Run]) -> None:
    """Among embeddings, a person who is moved beyond the mean is found there as before."""
    _, run = made
    method = run.summary.method
    assert method is not None
    assert method.parameters["erase_strength"] == 1.0
    assert method.parameters["population"] == "kept"
    assert method.parameters["w_keep"] == 80


def test_text_tower_stays_as_it_is(made: tuple[Path, Run]) -> None:
    model, run = made
    checked = run.summary.guarantees
    assert checked is not None
    assert checked.changed_outside_visual == 0
    assert checked.changed_tensors
    if VLM.load(model).parameters("language"):
        assert checked.language_part_sha256_unchanged is True
        assert checked.text_identical is True
        assert checked.text_probes == 8
    else:
        assert checked.language_part_sha256_unchanged is None
        assert checked.text_identical is None
        assert checked.reason == "an image encoder without a text tower reads no text"


def test_zero_shot_names_are_those_of_transformers(
    made: tuple[Path, Run], photographs: dict[str, Path]
) -> None:
    model, run = made
    record = run.summary.recognition
    assert record is not None
    key = "retain_holdout/features/zero_shot"
    vlm = VLM.load(model)
    if not vlm.parameters("language"):
        assert record.names == 0
        assert run.summary.target is not None
        assert key not in run.summary.target
        return
    assert record.names == 6
    names = [p.name for side in ("forget", "retain") for p in sorted(photographs[side].iterdir())]
    held = held_out(run, photographs["retain"])
    inputs = vlm.collate_pictures([vlm.image(picture) for _, picture in held])
    tokens = vlm.processor.tokenizer(
        [CAPTION.format(n) for n in names], padding=True, truncation=True, max_length=32,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        text = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        best = vlm.model(**inputs, **text).logits_per_image.argmax(1)
    right = [names[i] == person for i, (person, _) in zip(best, held, strict=True)]
    assert run.summary.target is not None
    assert run.summary.target[key].value == pytest.approx(float(np.mean(right)))


def held_out(run: Run, folder: Path) -> list[tuple[str, Any]]:
    """The held-out photographs of the people to keep."""
    from unsee.recipes.plan import plan
    from unsee.recipes.unlearn import read_recipe

    job, _ = plan(read_recipe(run.folder / "recipe.yaml"), "run", "")
    return [(str(s.concept), s.picture) for s in job.splits["retain_holdout"]]


def test_attacks_without_answers_run_and_others_are_listed(made: tuple[Path, Run]) -> None:
    _, run = made
    assert run.summary.attacks is not None
    outcomes = run.summary.attacks.model_dump(exclude_none=True)
    assert {"prototype", "probe", "difference", "relearn_features"} <= outcomes.keys()
    names = [
        reading["name"] for reading in outcomes["prototype"][0]["models"]["unlearned"]["readings"]
    ]
    assert names == ["projector accuracy"]
    assert run.summary.attacks_left_out == dict.fromkeys(("in_context", "relearn"), NO_QUESTIONS)


def test_report_and_card_say_that_it_is_an_encoder(made: tuple[Path, Run]) -> None:
    model, run = made
    verdict = judge(run.summary)
    assert "asked no question" not in verdict.sentence
    assert "by features" in verdict.sentence
    has_text = bool(VLM.load(model).parameters("language"))
    assert ("among 6 names" in verdict.sentence) == has_text
    assert ("its text tower answers bit-for-bit the same" in verdict.sentence) == has_text
    card = (run.folder / "patch" / "README.md").read_text("utf-8")
    assert "image-feature-extraction" in card
    page = (run.folder / "report.html").read_text("utf-8")
    assert "language model" not in page


def test_patch_is_applied_verified_and_taken_back(made: tuple[Path, Run], tmp_path: Path) -> None:
    model, run = made
    out, inverse = tmp_path / "out", tmp_path / "inverse"
    unsee("apply", run.folder / "patch", "--model", model, "--out", out, "--inverse", inverse)
    requirement = "text,visual" if VLM.load(model).parameters("language") else "language,visual"
    unsee("verify", model, out, "--require", requirement)
    assert "AutoModel.from_pretrained(FOLDER)" in (out / "README.md").read_text("utf-8")
    assert VLM.load(out).hash("visual") != VLM.load(model).hash("visual")
    unsee("undo", inverse, "--model", out, "--out", tmp_path / "undone")
    weights = "model.safetensors"
    assert (tmp_path / "undone" / weights).read_bytes() == (model / weights).read_bytes()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--tier", "language"], "an image encoder has no language model, which vkd with tier"),
        (["--method", "npo"], "npo trains on some. Type --method vkd"),
        (["--ask", "Who is this?"], "an image encoder answers no questions. Leave --ask out"),
        (["--forget", "pocket:forget"], "these samples have some. Give photographs alone"),
    ],
)
def test_what_needs_answers_is_refused(
    made: tuple[Path, Run],
    photographs: dict[str, Path],
    tmp_path: Path,
    options: list[str],
    part: str,
) -> None:
    model, _ = made
    given = [] if "--forget" in options else ["--forget", photographs["forget"]]
    out = tmp_path / "run"
    error = unsee("unlearn", "--model", model, *given, *options, "--out", out, code=2)
    assert part in error
    assert not out.exists()


def test_evaluate_refuses_questions(made: tuple[Path, Run], tmp_path: Path) -> None:
    model, _ = made
    data = ["--data", "pocket:forget_holdout", "--out", tmp_path / "run"]
    error = unsee("evaluate", "--model", model, *data, code=2)
    assert "an image encoder answers no questions" in error


def test_serve_refuses_an_encoder(made: tuple[Path, Run]) -> None:
    model, _ = made
    error = unsee("serve", model, code=2)
    assert "an image encoder answers no questions, and the page asks questions" in error
