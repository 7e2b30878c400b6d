"""The content that a run belongs to: its data, its models and the settings of the code.

A run folder keeps the hashes in `environment.json`. A command that goes on with a run, or says that
it is finished, compares them first: the same command on other photographs is another run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import ValidationError

from unsee.artifacts.identity import Base
from unsee.artifacts.manifest import MANIFEST, TENSORS, read_manifest
from unsee.data.digests import content_hash, picture_hash
from unsee.errors import RunError, listed
from unsee.families import family_of
from unsee.files import combine_digests, hash_file, json_digest, read_text, write_atomically
from unsee.models.checkpoint import (
    INDEX,
    check_shards,
    model_type,
    read_config,
    read_header,
    resolve,
    weight_map,
)
from unsee.models.companions import CONFIG, PROCESSOR, matches
from unsee.models.devices import pick_device
from unsee.recipes.job import Job
from unsee.recipes.plan_finetune import FinetuneJob
from unsee.records.folder import ENVIRONMENT, PARTS, STATE
from unsee.records.provenance import provenance
from unsee.records.schema import Provenance
from unsee.types import Data, Sample

# Settings of the code that change bits, with what to type to have the value of before.
CODE = {
    "unsee": "install unsee=={value}",
    "torch": "install torch=={value}",
    "transformers": "install transformers=={value}",
    "threads": "set OMP_NUM_THREADS={value}",
    "device": "add --device {value}",
}


def job_inputs(job: Job) -> dict[str, str]:
    """Returns the SHA-256 of everything that a job reads, by name.

    Files of checkpoints are hashed once in a process. From pictures alone, shards without visual
    tensors are left closed, as everywhere.

    Args:
        job: The job.

    Raises:
        UnseeError: If a picture or a checkpoint cannot be read.
    """
    inputs = data_inputs(job.data, job.splits)
    if job.non_members:
        inputs["non_members"] = content_hash(job.non_members)
    if job.redactor is not None:
        keyed = job.redactor.pseudonyms.digest
        inputs = {name: keyed("samples", value) for name, value in inputs.items()}
    inputs |= checkpoint_inputs("model", job.model, job.visual_only)
    # The references are loaded for what is scored and attacked alone.
    if job.splits or job.suite or job.attacks:
        for name, source in job.references.items():
            if str(source) != str(job.model):
                inputs |= checkpoint_inputs(name, source, job.visual_only)
    for number, patch in enumerate(job.patches, 1):
        # A missing file, or a pipe in its place, is refused by name before it is opened.
        read_manifest(patch)
        label = "patch" if number == 1 else f"patch {number}"
        inputs |= {f"{label}/{name}": hash_file(patch / name) for name in (MANIFEST, TENSORS)}
    if job.method is not None:
        inputs |= _method_checkpoints(job)
    return inputs


def finetune_inputs(job: FinetuneJob) -> dict[str, str]:
    """Returns the SHA-256 of the checkpoints' files and of each model's samples, by name."""
    samples = {str(role): content_hash(samples) for role, samples in job.samples.items()}
    if job.redactor is not None:
        keyed = job.redactor.pseudonyms.digest
        samples = {role: keyed("samples", value) for role, value in samples.items()}
    target = {} if job.target is None else checkpoint_inputs("target", job.target)
    return samples | target | checkpoint_inputs("base", job.base)


def data_inputs(data: Data, splits: Mapping[str, Sequence[Sample]]) -> dict[str, str]:
    """Returns the SHA-256 of each set that is not empty, by name: pictures, texts and order.

    Args:
        data: The data of the method.
        splits: The samples to score, by split.
    """
    sets: dict[str, Sequence[Sample]] = {
        "forget": data.forget,
        "retain": data.retain,
        "text_only": data.text_only,
        **{f"split {name}": samples for name, samples in splits.items()},
    }
    inputs = {name: content_hash(samples) for name, samples in sets.items() if samples}
    if data.strangers:
        inputs["strangers"] = json_digest([picture_hash(picture) for picture in data.strangers])
    return inputs


def checkpoint_inputs(name: str, source: str | Path, visual_only: bool = False) -> dict[str, str]:
    """Returns the SHA-256 of a checkpoint's files that transformers reads, by "name/file".

    Args:
        name: What the checkpoint is, such as "model".
        source: Its folder or hub id.
        visual_only: Hash the visual tensors instead of the weight files.
    """
    folder = resolve(source)
    files = weight_map(folder, check=False)
    read = sorted(p for p in folder.iterdir() if matches(p.name, (*CONFIG, *PROCESSOR, INDEX)))
    inputs = {f"{name}/{path.name}": hash_file(path) for path in read if path.is_file()}
    if visual_only:
        return inputs | {f"{name}/visual tensors": _visual_hash(folder, files)}
    return inputs | {f"{name}/{path.name}": hash_file(path) for path in set(files.values())}


def _visual_hash(folder: Path, files: Mapping[str, Path]) -> str:
    """SHA-256 over the visual tensors' names, dtypes, shapes and bytes, as they are stored."""
    config = read_config(folder)
    family = family_of(model_type(config, folder), config)
    names = [name for name in files if Base(family, files, {}).is_visual(name)]
    shards = sorted({files[name] for name in names})
    check_shards(files, shards)
    headers = {shard: read_header(shard) for shard in shards}
    entries = {name: headers[files[name]][name] for name in names}
    base = Base(family, files, entries)
    return combine_digests(
        {f"{n}|{e.dtype}|{list(e.shape)}": base.digest(n) for n, e in entries.items()}
    )


def _method_checkpoints(job: Job) -> dict[str, str]:
    """The hashes of checkpoints that fields of the method name, such as `base` of vkd."""
    inputs: dict[str, str] = {}
    for field in fields(job.method) if job.method is not None else ():
        value = getattr(job.method, field.name)
        if isinstance(value, str) and (Path(value) / "config.json").is_file():
            inputs |= checkpoint_inputs(f"method {field.name}", value)
    return inputs


def keep_study_content(out: Path, inputs: Mapping[str, str]) -> None:
    """Refuses another content in the folder of a study, which grows; writes that of a new one.

    Args:
        out: The folder of the comparison or meta-evaluation.
        inputs: The hashes of what its runs read, by name.

    Raises:
        RunError: If data, a model or a version has changed since the study was begun.
    """
    before = _read(out / ENVIRONMENT)
    now = provenance(0, "cpu", inputs=dict(inputs))
    if before is not None and before.inputs is not None:
        known = {name: inputs[name] for name in before.inputs if name in inputs}
        changed = [name for name, value in known.items() if before.inputs[name] != value]
        _refuse(out, changed, "study that was begun")
        versions = ("unsee", "torch", "transformers")
        _check_code(out, before, now, versions)
        now = now.model_copy(update={"inputs": {**before.inputs, **inputs}})
    keep_environment(out, now)


def _refuse(out: Path, changed: Sequence[str], state: str) -> None:
    if changed:
        raise RunError(
            f"{out} holds a {state} with other content. Not as in {out / ENVIRONMENT}: "
            f"{listed(changed, most=6)}. Restore these, or name another folder with --out to start "
            "over."
        )


def check_content(out: Path, inputs: Mapping[str, str], device: str, finished: bool) -> None:
    """Refuses to go on with a run of other content.

    Args:
        out: The output folder; one that holds nothing yet is right.
        inputs: The hashes of what the run reads now, by name.
        device: The device of the recipe: auto, cpu or cuda.
        finished: Whether the run is finished: then only its inputs count.

    Raises:
        RunError: If data, a model or a setting of the code has changed, or cannot be compared.
    """
    path = out / ENVIRONMENT
    started = any((out / name).exists() for name in (PARTS, STATE))
    before = _read(path)
    if before is None or before.inputs is None:
        # Runs of 0.1 that are finished kept no hashes.
        if started and not finished:
            raise RunError(
                f"{path} does not say which data and models the unfinished run belongs to. Restore "
                "it, or name another folder with --out."
            )
        return
    changed = _differing(before.inputs, inputs)
    _refuse(out, changed, "finished run" if finished else "run that was begun")
    if not finished and started:
        _check_code(out, before, provenance(0, pick_device(device)))


def _check_code(
    out: Path, before: Provenance, now: Provenance, names: Iterable[str] = tuple(CODE)
) -> None:
    """Refuses to go on with other versions, another device or another number of threads."""
    for name in names:
        advice = CODE[name]
        old, new = getattr(before, name), getattr(now, name)
        if name == "device":
            old, new = (str(value).partition(":")[0] for value in (old, new))
        if old is not None and old != new:
            raise RunError(
                f"{out} holds a run that was begun with {name} {old}, which is {new} here: the "
                f"result would have other bits. To go on, {advice.format(value=old)} and type the "
                "same command, or name another folder with --out to start over."
            )


def keep_environment(out: Path, environment: Provenance) -> None:
    """Writes environment.json.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    write_atomically(out / ENVIRONMENT, json.dumps(environment.to_dict(), indent=1) + "\n")


def _read(path: Path) -> Provenance | None:
    try:
        return Provenance.model_validate(json.loads(read_text(path)))
    except FileNotFoundError:
        return None
    except (ValidationError, ValueError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged: it does not hold the environment of a run. Restore it, or name "
            "another folder with --out."
        ) from error


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name) != now.get(name)]
