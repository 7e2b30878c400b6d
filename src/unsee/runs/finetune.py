"""Trains and saves the models that a finetuning recipe names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from unsee.artifacts.model_card import Card
from unsee.artifacts.redaction import hub_id
from unsee.data.digests import data_hash
from unsee.errors import ModelError, RunError, UnseeError
from unsee.files import read_text, remove, write_atomically
from unsee.hub.snapshots import commits
from unsee.losses import IGNORE, nll
from unsee.models.devices import pick_device
from unsee.models.dry_run import check_inputs
from unsee.models.vlm import VLM
from unsee.progress import Bar
from unsee.recipes.finetune import TrainedRole
from unsee.recipes.plan_finetune import FinetuneJob, redacted_finetune
from unsee.recipes.resume import same_recipe
from unsee.records.folder import STATE, RunFolder, jsonable, tidy
from unsee.records.lock import exclusive, is_empty
from unsee.records.provenance import peak_memory, provenance
from unsee.records.schema import SCHEMA, FinetunedModel, FinetuneRecord
from unsee.runs.content import check_content, finetune_inputs, keep_environment
from unsee.runs.preflight import refuse_broken_weights
from unsee.runs.stage_cache import StageCache
from unsee.training.settings import TrainingSettings
from unsee.training.trainer import Trainer
from unsee.types import Batch, Data

RECORD = "finetune.json"

FINETUNED_MODEL = TypeAdapter(FinetunedModel)


def finetune(job: FinetuneJob, out: Path, command: str, bar: Bar) -> FinetuneRecord:
    """Trains the models of a job in a folder, or resumes where it was interrupted.

    A folder that holds the same models, finished, is read and left as it is.

    Args:
        job: Base checkpoint, recipe and samples.
        out: The folder.
        command: What the user typed.
        bar: Shows the progress of every model.

    Raises:
        UnseeError: If anything is wrong; the same command then resumes.
    """
    device = job.recipe.device
    job = redacted_finetune(job, out)
    if job.redactor is not None:
        command = job.redactor.command(command)
    with exclusive(out):
        finished = finished_finetune(job, out)
        if finished is not None:
            check_content(out, finetune_inputs(job), device, finished=True)
            tidy(out, finished=True)
            return finished
        if (out / RECORD).exists():
            raise RunError(
                f"{out} holds finished models (see {out / RECORD}). Name another folder with "
                "--out, or remove it."
            )
        text, inputs = job.text(command), finetune_inputs(job)
        RunFolder.refuse(out, text, same_recipe)
        check_content(out, inputs, device, finished=False)
        is_new = is_empty(out)
        try:
            tidy(out)
            if job.key is not None:
                job.key.keep()
            folder = RunFolder.open(out, text, same_recipe, job.redactor)
            seed = job.recipe.seed
            environment = provenance(
                seed, pick_device(device), inputs=inputs, **_key_id(job), **_commits(job)
            )
            keep_environment(out, environment)
            return _train_all(job, folder, command, bar)
        except UnseeError:
            # A folder without a single training step is of no use.
            if is_new and not any(out.glob("*.jsonl")):
                for path in out.iterdir():
                    remove(path)
            raise


def finished_finetune(job: FinetuneJob, out: Path) -> FinetuneRecord | None:
    """Returns the record if the folder holds the job's models, finished; None otherwise.

    Raises:
        RunError: If the record is damaged.
    """
    path = out / RECORD
    if not path.exists() or not RunFolder.holds_recipe(out, job.text(""), same_recipe):
        return None
    try:
        return FinetuneRecord.model_validate_json(read_text(path))
    except ValidationError as error:
        raise RunError(
            f"{path}: not as documented ({error.errors()[0]['msg']}). Restore it, or remove {out} "
            "and run again."
        ) from error


def _train_all(job: FinetuneJob, folder: RunFolder, command: str, bar: Bar) -> FinetuneRecord:
    recipe, out = job.recipe, folder.path
    counts = job.describe()
    cache = StageCache(folder)
    models: dict[str, FinetunedModel] = {
        role: cache.get_or_compute(
            FINETUNED_MODEL, role, "", partial(_train, job, role, counts[role], out, command, bar)
        )
        for role in job.samples
    }
    record = FinetuneRecord(
        schema=SCHEMA,
        kind="finetune",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        base=job.base,
        recipe=jsonable(asdict(recipe)),
        models=dict(models),
    )
    if job.redactor is not None:
        content = job.redactor.record(record.to_dict())
        record = FinetuneRecord.model_validate({**content, "redacted": True})
    text = json.dumps(record.to_dict(), indent=1, ensure_ascii=False)
    write_atomically(out / RECORD, text + "\n")
    folder.remove_temporary_files()
    return record


def labels_of(vlm: VLM, batch: Batch, loss: str) -> torch.Tensor:
    """Returns the labels that are trained on, [batch, tokens], -100 where there is no loss.

    Args:
        vlm: The model.
        batch: Samples.
        loss: "answer" for the answer's tokens; "all" for all ordinary tokens of the chat.
    """
    if loss == "answer":
        return batch.labels
    tokenizer = vlm.processor.tokenizer
    # Added tokens include the placeholders of pictures, which carry no text.
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = batch.inputs["input_ids"]
    skipped = torch.isin(ids, torch.tensor(sorted(added), device=ids.device))
    skipped |= batch.inputs["attention_mask"] == 0
    return torch.where(skipped & (batch.labels == IGNORE), IGNORE, ids)


def _train(
    job: FinetuneJob,
    role: TrainedRole,
    counts: Mapping[str, Any],
    out: Path,
    command: str,
    bar: Bar,
) -> FinetunedModel:
    """Trains and saves one model; a resumed run takes the weights from its training state."""
    recipe, samples = job.recipe, job.samples[role]
    vlm = starting_model(job, role)
    check_inputs(vlm, samples)
    refuse_broken_weights(vlm)
    start = vlm.hash()
    settings = recipe.settings(len(samples))
    stage = bar.stage(f"training {role.replace('_', '-')}")
    trainer = Trainer(settings, out / STATE / role, out / f"{role}.jsonl", stage)
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
        name = f"{role}-adapter"
        _save_once(out / name, lambda folder: adapters.save(folder, hub_id(job.base)))
        _card(job, role, start, command, "adapter").write(out / name)
        saved["adapter"] = name
    if recipe.save != "adapter":
        _save_once(out / role, vlm.save)
        _card(job, role, start, command, "model").write(out / role)
        saved["model"] = role
    return FinetunedModel(
        **counts,
        saved=saved,
        data_sha256=_keyed(job, data_hash(Data(samples, ()))),
        seconds=history.seconds,
        trainable_parameters=history.trained,
        last={**history.last},
        peak_memory_bytes=peak_memory(),
        provenance=provenance(
            settings.seed,
            str(vlm.device),
            start_weights_sha256=start,
            result_weights_sha256=vlm.hash(),
            **_commits(job),
        ),
    )


def _commits(job: FinetuneJob) -> dict[str, dict[str, str]]:
    """The field of the provenance with what was read from the hub; {} if nothing was."""
    read = commits(filter(None, (job.base, job.target)), "model")
    return {"hub": read} if read else {}


def starting_model(job: FinetuneJob, role: TrainedRole) -> VLM:
    """Returns the model to train: the base, or for a refit the target with the base's visual part.

    Args:
        job: The job.
        role: The model.

    Raises:
        ModelError: If the base's visual part is not that of the target.
    """
    recipe = job.recipe

    def load(source: str) -> VLM:
        return VLM.load(
            source,
            trust_remote_code=recipe.trust_remote_code,
            dtype=recipe.dtype if recipe.dtype == "auto" else getattr(torch, recipe.dtype),
            device=recipe.device,
        )

    if role != "visual_refit" or job.target is None:
        return load(job.base)
    vlm, before = load(job.target), load(job.base).parameters("visual")
    own = vlm.parameters("visual")
    shapes = {name: tuple(parameter.shape) for name, parameter in own.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in before.items()}:
        raise ModelError(
            f"the visual parts of {job.base} and {job.target} differ in their tensors. Give the "
            "checkpoint that the target was trained from as model=DIR_OR_ID."
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(before[name])
    return vlm


def _save_once(folder: Path, save: Callable[[Path], None]) -> None:
    """Saves a folder, unless an interrupted run has done so: folders are written atomically."""
    if not folder.exists():
        save(folder)


def _card(
    job: FinetuneJob, role: TrainedRole, start: str, command: str, kind: Literal["model", "adapter"]
) -> Card:
    recipe, samples = job.recipe, job.samples[role]
    training = {f.name for f in fields(TrainingSettings)}
    shown = ("benchmark", "forget_ratio", "parts", "loss", "dtype")
    settings = asdict(recipe.settings(len(samples)))
    parameters = {k: getattr(recipe, k) for k in shown} | {k: settings[k] for k in sorted(training)}
    parameters["parts"] = ", ".join(recipe.parts)
    return Card(
        kind=kind,
        title=f"A {role.replace('_', '-')} model",
        base=job.base,
        base_sha256=start,
        action="learned",
        samples=samples,
        command=command,
        parameters=parameters,
        names=recipe.names,
        pseudonyms=job.redactor.pseudonyms if job.redactor is not None else None,
    )


def _key_id(job: FinetuneJob) -> dict[str, str]:
    """The field of the environment that identifies the key of a redacted job."""
    return {} if job.redactor is None else {"redacted_with": job.redactor.pseudonyms.key_id}


def _keyed(job: FinetuneJob, digest: str) -> str:
    return digest if job.redactor is None else job.redactor.pseudonyms.digest("samples", digest)
