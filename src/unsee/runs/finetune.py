"""Teaching: trains and saves the models that a finetuning recipe asks for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from unsee.artifacts.model_card import Card
from unsee.artifacts.redaction import hub_id
from unsee.benchmarks import ModelRole
from unsee.data.digests import data_hash
from unsee.errors import RunError, UnseeError
from unsee.files import write_atomically
from unsee.losses import IGNORE, nll
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.plan_finetune import FinetuneJob
from unsee.records.folder import STATE, RunFolder
from unsee.records.provenance import peak_memory, provenance
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data

RECORD = "finetune.json"


def finetune(lesson: FinetuneJob, out: Path, command: str, bar: Bar) -> dict[str, Any]:
    """Makes the models in a folder, or goes on where it was broken off.

    Returns:
        The content of finetune.json.

    Raises:
        UnseeError: If anything is wrong; the folder then resumes with the same command.
    """
    if (out / RECORD).exists():
        raise RunError(
            f"{out} holds finished models (see {out / RECORD}). Name another folder with --out, or "
            "remove it."
        )
    text = lesson.recipe.text(command)
    RunFolder.refuse(out, text)
    fresh = not out.exists()
    folder = RunFolder.open(out, text)
    try:
        return _teach_all(lesson, folder, command, bar)
    except UnseeError:
        # What was refused before its first step leaves nothing behind.
        if fresh and not any(out.glob("*.jsonl")):
            shutil.rmtree(out, ignore_errors=True)
        raise


def _teach_all(lesson: FinetuneJob, folder: RunFolder, command: str, bar: Bar) -> dict[str, Any]:
    recipe, out = lesson.recipe, folder.path
    counts = lesson.describe()
    models: dict[str, Any] = {}
    for who in lesson.samples:

        def make(who: ModelRole = who) -> dict[str, Any]:
            return {**counts[who], **_teach(lesson, who, out, command, bar)}

        models[who] = folder.get_or_compute(who, make)
    record = {
        "schema": 1,
        "kind": "finetune",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "base": lesson.base,
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
        "models": models,
    }
    write_atomically(out / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    folder.remove_temporary_files()
    return record


def labels_of(vlm: VLM, batch: Batch, loss: str) -> torch.Tensor:
    """The tokens that are learned: the answer's, or all ordinary tokens of the chat."""
    if loss == "answer":
        return batch.labels
    tokenizer = vlm.processor.tokenizer
    # Placeholders of pictures are among the added tokens, and nothing is to be learned from them.
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = batch.inputs["input_ids"]
    skipped = torch.isin(ids, torch.tensor(sorted(added), device=ids.device))
    skipped |= batch.inputs["attention_mask"] == 0
    return torch.where(skipped & (batch.labels == IGNORE), IGNORE, ids)


def _teach(
    lesson: FinetuneJob, who: ModelRole, out: Path, command: str, bar: Bar
) -> dict[str, Any]:
    """Trains and saves one model; a resumed run takes the weights from the state it finds."""
    recipe, samples = lesson.recipe, lesson.samples[who]
    vlm = VLM.load(
        lesson.base,
        trust_remote_code=recipe.trust_remote_code,
        dtype=recipe.dtype if recipe.dtype == "auto" else getattr(torch, recipe.dtype),
        device=recipe.device,
    )
    start = vlm.hash()
    settings = recipe.settings(len(samples))
    stage = bar.stage(f"teaching {who.replace('_', '-')}")
    trainer = Trainer(settings, out / STATE / who, out / f"{who}.jsonl", stage)
    parameters = {n: p for part in recipe.parts for n, p in vlm.parameters(part).items()}
    vlm.model.requires_grad_(False)

    def step(number: int) -> Mapping[str, torch.Tensor]:
        batch = vlm.collate(trainer.draw(samples, number))
        return {recipe.loss: nll(vlm.logits(batch), labels_of(vlm, batch, recipe.loss))}

    adapters = trainer.add_adapters(vlm, parameters)
    trained = parameters if adapters is None else adapters.parameters
    history = trainer.fit(vlm, trained, step, adapters=adapters).history
    vlm.model.requires_grad_(False)
    saved: dict[str, str] = {}
    if adapters is not None and recipe.save != "model":
        name = f"{who}-adapter"
        _once(out / name, lambda folder: adapters.save(folder, hub_id(lesson.base)))
        _card(lesson, who, start, command, "adapter").write(out / name)
        saved["adapter"] = name
    if recipe.save != "adapter":
        _once(out / who, vlm.save)
        _card(lesson, who, start, command, "model").write(out / who)
        saved["model"] = who
    return {
        "saved": saved,
        "data_sha256": data_hash(Data(samples, ())),
        "seconds": history.seconds,
        "trainable_parameters": history.trained,
        "last": history.last,
        "peak_memory_bytes": peak_memory(),
        "provenance": provenance(
            settings.seed,
            str(vlm.device),
            start_weights_sha256=start,
            result_weights_sha256=vlm.hash(),
        ),
    }


def _once(folder: Path, save: Callable[[Path], None]) -> None:
    """Saves unless a sitting that was broken off has done so: folders appear whole."""
    if not folder.exists():
        save(folder)


def _card(
    lesson: FinetuneJob, who: ModelRole, start: str, command: str, kind: Literal["model", "adapter"]
) -> Card:
    recipe, samples = lesson.recipe, lesson.samples[who]
    training = {f.name for f in fields(TrainingSettings)}
    shown = ("benchmark", "ratio", "parts", "loss", "dtype")
    settings = asdict(recipe.settings(len(samples)))
    parameters = {k: getattr(recipe, k) for k in shown} | {k: settings[k] for k in sorted(training)}
    parameters["parts"] = ", ".join(recipe.parts)
    return Card(
        kind=kind,
        title=f"A {who.replace('_', '-')} model",
        base=lesson.base,
        base_sha256=start,
        action="learned",
        samples=samples,
        command=command,
        parameters=parameters,
        names=recipe.names,
    )
