"""A run is its content: other data, models or settings of the code are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from support.cli import SHORT, unsee
from support.tables import table
from unsee.errors import RunError
from unsee.methods import METHODS
from unsee.progress import Bar, as_bar
from unsee.recipes.job import Job
from unsee.records.folder import ENVIRONMENT
from unsee.records.reader import read_run
from unsee.runs.content import checkpoint_inputs, job_inputs
from unsee.runs.run import run
from unsee.training.settings import TrainingSettings
from unsee.types import Data, Picture, Sample

STEPS = 6


@pytest.fixture
def job(tiny_folder: Path, data: Data, tmp_path: Path) -> Job:
    """A job that trains on copies of checkpoint and pictures, and is scored on two questions."""
    model = tmp_path / "model"
    shutil.copytree(tiny_folder, model)
    pictures = tmp_path / "pictures"
    pictures.mkdir()

    def copied(sample: Sample) -> Sample:
        if sample.picture is None:
            return sample
        path = pictures / Path(sample.picture.source).name
        shutil.copyfile(sample.picture.source, path)
        return replace(sample, picture=Picture.from_path(path))

    forget, retain = [copied(s) for s in data.forget], [copied(s) for s in data.retain]
    return Job(
        kind="unlearn",
        command="unsee unlearn",
        recipe="# unsee unlearn\nmodel: tiny\n",
        model=model,
        data=Data(forget, retain),
        splits={"forget": forget[:2]},
        method=METHODS.get("grad_diff")(),
        settings=TrainingSettings(steps=STEPS, batch_size=2, save_every=2, lr=1e-3),
        save="model",
        forgetting=("forget",),
        metrics=("accuracy",),
        max_new_tokens=2,
    )


def replace_picture(job: Job) -> None:
    picture = job.data.forget[0].picture
    assert picture is not None and picture.path is not None
    Image.new("RGB", (24, 24), (9, 99, 9)).save(picture.path)


def replace_weights(job: Job) -> None:
    path = Path(job.model) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replace_config(job: Job) -> None:
    path = Path(job.model) / "processor_config.json"
    path.write_text(path.read_text() + "\n")


CHANGES: dict[str, tuple[Callable[[Job], None], str]] = {
    "picture": (replace_picture, "forget, split forget"),
    "weights": (replace_weights, "model/model.safetensors"),
    "processor": (replace_config, "model/processor_config.json"),
}


def stopped_after(steps: int) -> Bar:
    """A bar that stops a training as Ctrl-C does."""

    def stop(stage: str, done: int, total: int, terms: Mapping[str, float]) -> None:
        if stage.startswith("unlearning") and done == steps:
            raise KeyboardInterrupt

    return as_bar(stop)


@pytest.fixture
def begun(job: Job, tmp_path: Path) -> Path:
    """The folder of a run that was stopped after five of six steps; the state is of step 4."""
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(job, out, stopped_after(5))
    return out


@pytest.mark.parametrize("change", CHANGES)
def test_run_refuses_to_resume_on_other_content(
    change: str, job: Job, begun: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    modify, names = CHANGES[change]
    modify(job)
    with pytest.raises(RunError, match=f"begun with other content.*{names}.*--out to start over"):
        run(job, begun, Bar(None))
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", CHANGES)
def test_run_refuses_to_call_other_content_finished(change: str, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = replace(job, method=None)
    first = run(job, out, Bar(None))
    assert first == run(job, out, Bar(None))
    assert first is not None and first.summary.provenance is not None
    assert first.summary.provenance.inputs == job_inputs(job)
    modify, names = CHANGES[change]
    modify(job)
    with pytest.raises(RunError, match=f"finished run with other content.*{names}"):
        run(job, out, Bar(None))


def test_run_resumed_on_the_same_content_ends_in_the_same_bits(
    job: Job, begun: Path, tmp_path: Path
) -> None:
    # Written again with the same content: other times, the same run.
    weights = Path(job.model) / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    resumed, unbroken = run(job, begun, Bar(None)), run(job, tmp_path / "whole", Bar(None))
    assert resumed is not None and unbroken is not None
    key = "result_weights_sha256"
    assert resumed.summary.provenance is not None and unbroken.summary.provenance is not None
    assert resumed.summary.provenance.extras == unbroken.summary.provenance.extras
    assert getattr(resumed.summary.provenance, key) == getattr(unbroken.summary.provenance, key)


def test_run_refuses_to_resume_with_another_thread_count(job: Job, begun: Path) -> None:
    torch.set_num_threads(2)
    try:
        with pytest.raises(RunError, match="begun with threads 1, which is 2 here.*NUM_THREADS=1"):
            run(job, begun, Bar(None))
    finally:
        torch.set_num_threads(1)
    content = json.loads((begun / ENVIRONMENT).read_text())
    (begun / ENVIRONMENT).write_text(json.dumps(content | {"torch": "1.0"}))
    with pytest.raises(RunError, match=r"begun with torch 1\.0.*install torch==1\.0"):
        run(job, begun, Bar(None))


DAMAGED = [".state/state", "train.jsonl", "environment.json", "recipe.yaml"]


@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing", "fifo"])
@pytest.mark.parametrize("name", DAMAGED)
def test_run_names_the_damaged_file_of_a_run_to_resume(
    name: str, harm: str, job: Job, begun: Path
) -> None:
    path = begun / name
    damage(path, harm)
    if (name, harm) == (".state/state", "missing"):
        # Nothing was trained then, as far as anyone can tell.
        assert run(job, begun, Bar(None)) is not None
        return
    named = begun if (name, harm) == ("recipe.yaml", "missing") else path
    with pytest.raises(RunError, match=str(named)):
        run(job, begun, Bar(None))


@pytest.mark.parametrize("harm", ["flipped", "truncated", "swapped"])
def test_run_names_a_damaged_result(harm: str, job: Job, tmp_path: Path) -> None:
    out = tmp_path / "run"
    job = replace(job, references={"target": job.model})

    def stop(stage: str, done: int, total: int, terms: Mapping[str, float]) -> None:
        if stage == "asking the target model":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, out, as_bar(stop))
    trained, scores = (out / ".parts" / f"{name}.json" for name in ("trained", "scores-unlearned"))
    if harm == "swapped":
        shutil.copyfile(trained, scores)
    else:
        damage(scores, harm)
    with pytest.raises(RunError, match=f"{scores}.*Remove it"):
        run(job, out, Bar(None))
    scores.unlink()
    assert run(job, out, Bar(None)) == read_run(out)


def test_run_names_a_saved_model_that_was_damaged(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def stop(stage: str, done: int, total: int, terms: Mapping[str, float]) -> None:
        if stage.startswith("asking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job, out, as_bar(stop))
    damage(out / "model" / "model.safetensors", "flipped")
    with pytest.raises(
        RunError, match=f"{out / 'model'} is damaged.*Remove it and {out / '.parts'}"
    ):
        run(job, out, Bar(None))
    shutil.rmtree(out / "model")
    shutil.rmtree(out / ".parts")
    resumed, unbroken = run(job, out, Bar(None)), run(job, tmp_path / "whole", Bar(None))
    assert resumed is not None and unbroken is not None
    assert resumed.summary.measures == unbroken.summary.measures
    assert (out / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model" / "model.safetensors"
    ).read_bytes()


def damage(path: Path, harm: str) -> None:
    content = bytearray(path.read_bytes())
    path.unlink()
    if harm == "fifo":
        os.mkfifo(path)
    elif harm != "missing":
        if harm == "flipped":
            content[3 * len(content) // 4] ^= 1
        path.write_bytes(content if harm == "flipped" else content[: len(content) // 2])


def test_checkpoint_inputs_name_every_file_that_is_read(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    inputs = checkpoint_inputs("model", folder)
    files = {path.name for path in folder.iterdir()} - {"README.md"}
    assert {name.removeprefix("model/") for name in inputs} == files
    (folder / "notes.txt").write_text("not read")
    assert checkpoint_inputs("model", folder) == inputs
    visual = checkpoint_inputs("model", folder, visual_only=True)
    assert "model/visual tensors" in visual and "model/model.safetensors" not in visual
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    weights.write_bytes(bytes(content[:-1]) + bytes([content[-1] ^ 1]))
    changed = {
        checkpoint_inputs("model", folder, visual_only=True)["model/visual tensors"],
        checkpoint_inputs("model", folder)["model/model.safetensors"],
    }
    assert inputs["model/model.safetensors"] not in changed


def test_commands_refuse_other_photographs(tiny_folder: Path, data: Data, tmp_path: Path) -> None:
    """Evaluate, audit and finetune, repeated after a picture of the table was replaced."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    samples = []
    for sample in data.forget[:6]:
        assert sample.picture is not None
        path = pictures / Path(sample.picture.source).name
        shutil.copyfile(sample.picture.source, path)
        samples.append(replace(sample, picture=Picture.from_path(path)))
    rows = table(tmp_path / "rows.jsonl", samples)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_folder}\nforget: {rows}\nsteps: 1\nlora: 0\nbatch_size: 2\n")
    audit: list[Any] = ["audit", "--model", tiny_folder, "--forget", rows, "--set", "steps=0"]
    unlearn = ["unlearn", "--model", tiny_folder, "--forget", rows, "--method", "grad_ascent"]
    commands: dict[str, list[Any]] = {
        "evaluate": ["evaluate", "--model", tiny_folder, "--data", rows],
        "audit": audit,
        "finetune": ["finetune", recipe],
        "unlearn": [*unlearn, *SHORT],
    }
    for name, command in commands.items():
        unsee(*command, "--out", tmp_path / name)
        note = unsee(*command, "--out", tmp_path / name, stderr=True)
        assert f"{tmp_path / name} holds" in note and "finished before" in note
    first = samples[0].picture
    assert first is not None and first.path is not None
    Image.new("RGB", (24, 24), (9, 99, 9)).save(first.path)
    for name, command in commands.items():
        message = unsee(*command, "--out", tmp_path / name, code=2)
        assert f"{tmp_path / name} holds a finished run with other content" in message
        assert "--out to start over" in message
